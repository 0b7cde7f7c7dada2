"""A PJSIP phone that is told what to do and tells what it sees.

Started with one argument, a JSON file with the attach data. Obeys the orders in ORDERS, a line each, on its standard
input; the end of the input ends the phone too. PJSIP logs every SIP message byte for byte on standard output, and that
is where the test looks for what happened. Not into a file of PJSIP's own, which is written in blocks.
"""

import json
import os
import select
import sys
import time

import pjsua2 as pj

TRANSPORTS = {
    "udp": pj.PJSIP_TRANSPORT_UDP,
    "tcp": pj.PJSIP_TRANSPORT_TCP,
    "tls": pj.PJSIP_TRANSPORT_TLS,
}


def tell(event, **fields):
    print(f"{time.monotonic():.3f}", event, fields or "", flush=True)


class Call(pj.Call):
    def onCallState(self, prm):
        info = self.getInfo()
        tell(info.stateText.lower(), code=info.lastStatusCode)

    def onInstantMessage(self, prm):
        tell("message in a call", body=prm.msgBody)

    def onDtmfDigit(self, prm):
        tell("digit", digit=prm.digit)


class Account(pj.Account):
    def __init__(self):
        super().__init__()
        self.calls = []
        self.buddies = []

    def onRegState(self, prm):
        active = self.getInfo().regIsActive
        tell("registered" if active else "unregistered", code=prm.code, expiration=prm.expiration)

    def onIncomingCall(self, prm):
        call = Call(self, prm.callId)
        self.calls.append(call)  # pjsua2 hangs up when Python collects the object
        ringing = pj.CallOpParam()
        ringing.statusCode = 180
        call.answer(ringing)

    def onInstantMessage(self, prm):
        tell("message", body=prm.msgBody)


def endpoint(attach):
    config = pj.EpConfig()
    # No thread of PJSIP's own: callbacks come from libHandleEvents in this thread, so Python's lock is never fought for.
    config.uaConfig.threadCnt = 0
    config.uaConfig.mainThreadOnly = True
    config.logConfig.level = 5
    config.logConfig.consoleLevel = 5
    ep = pj.Endpoint()
    ep.libCreate()
    ep.libInit(config)
    transport = pj.TransportConfig()
    transport.boundAddress = "127.0.0.1"
    # Without this the Contact and the SDP name the machine's first outside address.
    transport.publicAddress = "127.0.0.1"
    if attach["transport"] == "tls":
        transport.tlsConfig.CaListFile = attach["ca_file"]
        transport.tlsConfig.verifyServer = True
    ep.transportCreate(TRANSPORTS[attach["transport"]], transport)
    ep.libStart()
    ep.audDevManager().setNullDev()  # the machine has no sound card
    return ep


def account(attach):
    config = pj.AccountConfig()
    config.idUri = attach["aor"]
    config.regConfig.registrarUri = attach["registrar"] or "sip:" + attach["aor"].split("@", 1)[1]
    config.regConfig.registerOnAdd = attach["register"]
    config.regConfig.timeoutSec = attach["expires"]
    if attach["contact_params_behind"]:
        config.regConfig.contactParams = attach["contact_params"]
    else:
        config.regConfig.contactUriParams = attach["contact_params"]
    # Soon enough for a test, and the same each time: after a lost connection PJSIP waits this long before it registers.
    config.regConfig.firstRetryIntervalSec = 1
    config.regConfig.randomRetryIntervalSec = 0
    # "lr", or PJSIP strict-routes; the domain need not resolve, since everything goes to this address.
    config.sipConfig.proxies.append(attach["proxy"] + ";lr")
    config.sipConfig.authCreds.append(
        pj.AuthCredInfo("digest", "*", attach["username"], 0, attach["password"]))
    config.mediaConfig.transportConfig.port = attach["rtp_port"]
    config.mediaConfig.transportConfig.boundAddress = "127.0.0.1"
    config.mediaConfig.transportConfig.publicAddress = "127.0.0.1"
    # Both off, or PJSIP follows the answer with a re-INVITE or UPDATE of its own, and then there are two SDP answers.
    config.mediaConfig.lockCodecEnabled = False
    config.callConfig.timerUse = pj.PJSUA_SIP_TIMER_INACTIVE
    # Who does not require it offers it, and then uses it where the other side does.
    config.callConfig.prackUse = pj.PJSUA_100REL_MANDATORY if attach["require_100rel"] else pj.PJSUA_100REL_OPTIONAL
    account = Account()
    account.create(config)
    return account


def words_from_stdin(pending):
    """Yields the complete lines that came in; "quit" at the end of the input."""
    if not select.select([0], [], [], 0)[0]:
        return
    data = os.read(0, 4096)
    if not data:
        yield "quit"
        return
    pending += data
    while b"\n" in pending:
        line, _, rest = bytes(pending).partition(b"\n")
        pending[:] = rest
        yield line.decode().strip()


def status(code):
    param = pj.CallOpParam()
    param.statusCode = code
    return param


def answer(call):
    """Answers a call that rings; one that goes on already is left alone."""
    if call.getInfo().state != pj.PJSIP_INV_STATE_CONFIRMED:
        call.answer(status(200))


def resume(call):
    param = pj.CallOpParam(True)
    param.opt.flag = pj.PJSUA_CALL_UNHOLD
    call.reinvite(param)


def text(call, words):
    param = pj.SendInstantMessageParam()
    param.content = words
    call.sendInstantMessage(param)


def request(call, method):
    param = pj.CallSendRequestParam()
    param.method = method
    call.sendRequest(param)


def digit(call, which):
    param = pj.CallSendDtmfParam()
    param.method = pj.PJSUA_DTMF_METHOD_SIP_INFO
    param.digits = which
    call.sendDtmf(param)


def buddy(phone, uri):
    config = pj.BuddyConfig()
    config.uri = uri
    buddy = pj.Buddy()
    buddy.create(phone, config)
    phone.buddies.append(buddy)  # pjsua2 forgets it when Python collects the object
    return buddy


def message(phone, words):
    uri, _, content = words.partition(" ")
    param = pj.SendInstantMessageParam()
    param.content = content
    buddy(phone, uri).sendInstantMessage(param)


def typing(phone, uri):
    param = pj.SendTypingIndicationParam()
    param.isTyping = True
    buddy(phone, uri).sendTypingIndication(param)


# What can be done with a call that is going on: the call and the rest of the line.
ORDERS = {
    "early": lambda call, _: call.answer(status(183)),
    "answer": lambda call, _: answer(call),
    "decline": lambda call, code: call.hangup(status(int(code))),
    "hangup": lambda call, _: call.hangup(pj.CallOpParam(True)),
    "hold": lambda call, _: call.setHold(pj.CallOpParam(True)),
    "resume": lambda call, _: resume(call),
    "update": lambda call, _: call.update(pj.CallOpParam(True)),
    "digit": digit,
    "text": text,
    "options": lambda call, _: request(call, "OPTIONS"),
    "refer": lambda call, target: call.xfer(target, pj.CallOpParam(True)),
}


def obey(line, phone):
    word, _, rest = line.partition(" ")
    if word == "quit":
        # Not libDestroy: it waits a second for transactions, and the process owns nothing else.
        os._exit(0)
    elif word == "register":
        phone.setRegistration(True)
    elif word == "message":
        message(phone, rest)
    elif word == "typing":
        typing(phone, rest)
    elif word == "call":
        call = Call(phone)
        phone.calls.append(call)
        call.makeCall(rest, pj.CallOpParam(True))
    elif word == "join":
        first, second = [call for call in phone.calls if call.isActive()]
        first.xferReplaces(second, pj.CallOpParam(True))
    else:
        for call in [call for call in phone.calls if call.isActive()]:
            ORDERS[word](call, rest)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        attach = json.load(file)
    ep = endpoint(attach)
    phone = account(attach)
    tell("started")
    pending = bytearray()
    while True:
        ep.libHandleEvents(10)
        for line in words_from_stdin(pending):
            obey(line, phone)


main()
