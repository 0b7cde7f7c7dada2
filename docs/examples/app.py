#!/usr/bin/env python3
"""An app with PJSIP as its SIP stack that plays the situations of ../client-guide.md; letters and numbers in the comments
are the guide's situations and sections. It needs pjsua2 (https://www.pjsip.org), and pushes of `reveille sandbox` or
`reveille demo`.

    app.py API-URL APP-KEY MAILBOX-URL aor=sip:alice@example.com registrar=sip:example.com user=alice

Standard input is the user: the password first, then a command a line: answer, decline, hang-up, offline and online (the
network), start (of the app), foreground, background, test, refresh, off.
"""
import json
import os
import queue
import re
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

import pjsua2 as pj

APP = os.environ.get("APP", "sandbox")  # as `reveille sandbox` and `reveille demo` name it
CA_FILE = os.environ.get("CA_FILE", "")
TLS = ssl.create_default_context(cafile=CA_FILE or None)
if os.environ.get("INSECURE") == "1":  # For trying alone: the demo makes its own certificates.
    TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE


def say(*words):
    print(*words, flush=True)


def https(method, url, bearer=None, body=None):
    """One request; the status and the JSON of the answer."""
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None, headers, method=method)
    try:
        with urllib.request.urlopen(request, context=TLS, timeout=90) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as problem:
        status, text = problem.code, problem.read()
    return status, json.loads(text) if text else {}


class SipCall(pj.Call):
    """One INVITE of section 3."""

    def __init__(self, app, account, sip_id, call):
        super().__init__(account, sip_id)
        self.app, self.call = app, call

    def reply(self, status):
        param = pj.CallOpParam()
        param.statusCode = status
        self.answer(param)

    def onCallState(self, _):
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_CONFIRMED:
            say("talking:", self.call)
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            self.app.later(lambda: self.app.end(self.call, f"SIP {info.lastStatusCode}"))


class SipAccount(pj.Account):
    """Attached, or on the way there."""

    def __init__(self, app):
        super().__init__()
        self.app = app

    def onRegState(self, prm):
        answer, code, active = prm.rdata.wholeMsg, prm.code, self.getInfo().regIsActive
        self.app.later(lambda: self.app.attach_answered(code, active, answer))

    def onIncomingCall(self, prm):
        found = re.search(r"(?im)^Reveille-Call:\s*([^\s;]+)", prm.rdata.wholeMsg)
        call = found.group(1) if found else str(uuid.uuid4())
        self.app.invited(SipCall(self.app, self, prm.callId, call))

    def onInstantMessage(self, prm):
        say("message:", prm.msgBody)  # n: store it; PJSIP has answered 200 by now.


class App:
    def __init__(self, api, app_key, mailbox, account, password):
        self.api, self.app_key, self.mailbox = api, app_key, mailbox
        self.account, self.password = account, password
        # A real app keeps these for as long as it is installed.
        self.device = account.get("device") or f"urn:uuid:{uuid.uuid4()}"
        self.tokens = {purpose: f"{account['user']}-{purpose}" for purpose in ("call", "other")}
        self.held = None  # what the hand-over answered: instance, token, attach
        self.renewed = 0
        self.online, self.leaving, self.todo = True, False, queue.Queue()
        self.ringing, self.sip_calls, self.ended = {}, {}, {}
        self.sip, self.sip_token = None, None
        self.wanted, self.attached, self.busy = None, False, False  # wanted: where to be attached
        self.endpoint = start_pjsip()

    def later(self, act):
        """Runs an act in the main thread, outside of PJSIP's callbacks."""
        self.todo.put(act)

    # Section 1

    def hand_over(self):
        status, answer = https("POST", f"{self.api}/v1/instances", self.app_key, {
            "account": {"aor": self.account["aor"], "registrar": self.account["registrar"],
                        "auth_username": self.account["user"], "password": self.password},
            "device": {"id": self.device, "platform": "android", "push": [
                {"for": purpose, "provider": "sandbox", "app": APP, "token": token}
                for purpose, token in self.tokens.items()]},
            "mode": "background", "lease_seconds": 7200})
        if status not in (200, 201, 202):  # b
            say("refused:", status, answer["type"], answer.get("verdict", ""))
            return
        self.held, self.renewed = answer, time.time()
        self.leave()  # What was attached has the former token.
        say("handed over:", answer["registration"]["state"])

    def ask(self, method, rest="", body=None):
        """A call about the instance; v: one that is gone is forgotten."""
        if self.held is None:
            return None, {}
        status, answer = https(method, f"{self.api}/v1/instances/{self.held['instance']}{rest}", self.held["token"], body)
        gone = status == 410 or (answer.get("type", "").endswith(":not-found") and not rest.startswith("/calls"))
        if gone:
            say("forgotten:", status, answer.get("cause", ""))
            self.held = None
            self.leave()
        return status, answer

    def renew(self):  # p
        if time.time() - self.renewed > 24 * 3600:
            status, _ = self.ask("POST", "/refresh")
            self.renewed = time.time()
            say("lease renewed:", status)

    # Section 2

    def pushed(self, push):
        if push.get("v") != 1:
            return
        kind, call = push["kind"], push.get("call")
        if self.held is None or push["instance"] != self.held["instance"]:  # t
            say("unknown instance:", kind)
        elif kind == "call":
            self.show(call, push)
        elif kind == "call-ended":
            self.end(call, push["reason"])
        elif kind == "message":
            self.attach(push["attach"])
        elif kind in ("missed-call", "voicemail"):  # o
            say(f"{kind}:", push.get("voicemail", call))
        elif kind == "test":  # s
            _, answer = self.ask("POST", f"/test/{push['test']}")
            say("test arrived:", "arrived_ms" in answer)
        elif kind in ("expiring", "reprovision"):  # a, p
            self.hand_over()
        self.renew()

    def show(self, call, push):
        if call in self.ended or time.time() > push["expires_at"]:  # e
            say("too late:", call)
            return
        if call not in self.ringing and call not in self.sip_calls:  # c; d shows nothing new
            say("ringing:", call)
            self.ringing[call] = push["expires_at"]
        self.attach(push["attach"])

    def end(self, call, why):
        """A call is over, or turns out to be: j, k and every hang-up."""
        if call in self.ended:
            return
        self.ended[call] = time.time() + 120
        self.ringing.pop(call, None)
        self.sip_calls.pop(call, None)
        say("over:", call, why)
        if not self.ringing and not self.sip_calls:
            self.leave()

    def tick(self):
        now = time.time()
        for call in [call for call, until in self.ringing.items() if now > until and call not in self.sip_calls]:
            self.end(call, "expired")  # f
        self.ended = {call: until for call, until in self.ended.items() if until > now}

    # Section 3

    def attach(self, uri):
        if self.online:
            self.wanted = uri
            self.settle()

    def leave(self):
        """Detaches, after the last call."""
        self.wanted = None
        self.settle()

    def settle(self):
        """Brings PJSIP to where the app wants it. It does one REGISTER at a time and says when that is over."""
        if self.leaving and not self.busy and not self.attached:
            self.leaving = False
            say("offline")
        stale = self.held is None or self.sip_token != self.held["token"]
        if self.busy or (self.attached and self.wanted and not stale) or (not self.attached and not self.wanted):
            return
        self.busy = True
        if self.attached:
            self.sip.setRegistration(False)
        elif self.sip is None:
            self.sip = SipAccount(self)
            self.sip.create(self.sip_config())
        elif stale:
            self.sip.modify(self.sip_config())
        else:
            self.sip.setRegistration(True)

    def sip_config(self):
        held, self.sip_token = self.held["attach"], self.held["token"]
        config = pj.AccountConfig()
        config.idUri = held["aor"]
        config.regConfig.registrarUri = "sip:" + held["aor"].split("@", 1)[1]
        config.regConfig.timeoutSec = 3600
        config.regConfig.retryIntervalSec = 0
        config.sipConfig.proxies.append(self.wanted + ";lr")
        config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", held["username"], 0, self.sip_token))
        return config

    def attach_answered(self, code, active, answer):
        self.busy, self.attached = False, active
        if code != 200 and self.wanted:  # u
            say("not attached:", code)
            self.wanted = None
            if code in (401, 404):
                self.hand_over()
                if self.held and self.ringing:
                    self.attach(self.held["attach"]["uri"])
        elif active and self.wanted:
            say("attached")
            for call, parameters in re.findall(r"(?im)^Reveille-Call:\s*([^\s;]+)(.*)$", answer):
                if "state=ended" in parameters and call in self.ringing:  # j
                    self.end(call, re.search(r"reason=([\w-]+)", parameters).group(1))
        self.settle()

    def invited(self, sip_call):
        call = sip_call.call
        if call not in self.ringing:  # g, i
            say("ringing:", call)
            self.ringing[call] = time.time() + 60
        say("invited:", call)
        self.sip_calls[call] = sip_call
        sip_call.reply(180)

    # The user

    def obey(self, command):
        newest = next(reversed(self.ringing), None)
        sip_call = self.sip_calls.get(newest)
        if command == "answer" and sip_call:
            del self.ringing[newest]
            sip_call.reply(200)
        elif command == "decline" and sip_call:  # m
            sip_call.reply(486)
        elif command == "decline" and newest:  # l
            status, _ = self.ask("POST", f"/calls/{newest}/decline", {"reason": "decline"})
            say("declined:", status)
            self.end(newest, "declined")
        elif command == "hang-up":
            for sip_call in list(self.sip_calls.values()):
                sip_call.hangup(pj.CallOpParam(True))
        elif command == "offline":
            self.online, self.leaving = False, True
            self.leave()
        elif command == "online":
            self.online = True
            if self.ringing:
                self.attach(self.held["attach"]["uri"])
        elif command in ("start", "background"):  # a, r
            self.hand_over()
        elif command == "foreground":  # r
            say("foreground:", self.ask("POST", "/foreground", {"binding": "release"})[1].get("binding"))
        elif command == "test":  # s
            say("test:", self.ask("POST", "/test")[0])
        elif command == "refresh":  # p
            say("refreshed:", self.ask("POST", "/refresh")[0])
        elif command == "off":  # q
            status, answer = self.ask("DELETE")
            say("erased:", status, "receipt" in answer)

    def run(self):
        self.hand_over()
        for token in self.tokens.values():
            threading.Thread(target=self.listen, args=[token], daemon=True).start()
        threading.Thread(target=self.read_user, daemon=True).start()
        while True:
            self.endpoint.libHandleEvents(20)
            while not self.todo.empty():
                self.todo.get()()
            self.tick()

    def listen(self, token):
        """Stands in for the system's push service."""
        while True:
            status, push = https("GET", f"{self.mailbox}/pushes/{token}?wait=30")
            if status == 200:
                self.later(lambda push=push["payload"]: self.pushed(push))

    def read_user(self):
        for line in sys.stdin:
            self.later(lambda command=line.strip(): self.obey(command))
        self.later(lambda: os._exit(0))


def start_pjsip():
    config = pj.EpConfig()
    config.uaConfig.threadCnt = 0  # Callbacks come from libHandleEvents, in the main thread.
    config.uaConfig.mainThreadOnly = True
    config.logConfig.consoleLevel = int(os.environ.get("PJSIP_LOG", "0"))
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    endpoint.libInit(config)
    transport = pj.TransportConfig()
    if CA_FILE:  # Section 12: the SIP stack has trust of its own.
        transport.tlsConfig.CaListFile, transport.tlsConfig.verifyServer = CA_FILE, True
    for kind in (pj.PJSIP_TRANSPORT_UDP, pj.PJSIP_TRANSPORT_TCP, pj.PJSIP_TRANSPORT_TLS):
        endpoint.transportCreate(kind, transport)
    endpoint.libStart()
    endpoint.audDevManager().setNullDev()
    return endpoint


def main():
    api, app_key, mailbox, *rest = sys.argv[1:]
    account = dict(argument.split("=", 1) for argument in rest)
    App(api, app_key, mailbox, account, sys.stdin.readline().strip()).run()


if __name__ == "__main__":
    main()
