"""A PJSIP phone that is told what to do and tells what it sees.

Started with one argument, a JSON file with the attach data. Obeys the words "answer", "hangup" and "quit" on its
standard input; the end of the input means "quit" too. PJSIP logs every SIP message byte for byte on standard output,
and that is where the test looks for what happened. Not into a file of PJSIP's own, which is written in blocks.
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


class Account(pj.Account):
    def __init__(self):
        super().__init__()
        self.calls = []

    def onRegState(self, prm):
        active = self.getInfo().regIsActive
        tell("registered" if active else "unregistered", code=prm.code, expiration=prm.expiration)

    def onIncomingCall(self, prm):
        call = Call(self, prm.callId)
        self.calls.append(call)  # pjsua2 hangs up when Python collects the object
        ringing = pj.CallOpParam()
        ringing.statusCode = 180
        call.answer(ringing)


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
    config.regConfig.registrarUri = "sip:" + attach["aor"].split("@", 1)[1]
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


def obey(word, calls):
    active = [call for call in calls if call.isActive()]
    if word == "answer":
        for call in active:
            ok = pj.CallOpParam()
            ok.statusCode = 200
            call.answer(ok)
    elif word == "hangup":
        for call in active:
            call.hangup(pj.CallOpParam(True))
    elif word == "quit":
        # Not libDestroy: it waits a second for transactions, and the process owns nothing else.
        os._exit(0)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        attach = json.load(file)
    ep = endpoint(attach)
    phone = account(attach)
    tell("started")
    pending = bytearray()
    while True:
        ep.libHandleEvents(10)
        for word in words_from_stdin(pending):
            obey(word, phone.calls)


main()
