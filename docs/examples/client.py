#!/usr/bin/env python3
"""A whole client of Reveille in one file: hands an account over, waits for a push, attaches, takes one call, leaves.

It needs nothing but Python, and does what ../client-guide.md says, in that order; the numbers are its sections. Media and
a user are missing: it answers every call, and is hung up on. Push comes from the mailbox of `reveille sandbox`.

    client.py API-URL APP-KEY MAILBOX-URL aor=sip:alice@example.com registrar=sip:example.com user=alice < password
"""
import hashlib
import json
import os
import re
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
import uuid

APP = os.environ.get("APP", "sandbox")  # as `reveille sandbox` names it
SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"

# CA_FILE names an authority to trust besides the system's. INSECURE=1 is for trying alone: without a configured
# certificate the daemon and the mailbox make their own.
TLS = ssl.create_default_context()
if "CA_FILE" in os.environ:
    TLS.load_verify_locations(os.environ["CA_FILE"])
if os.environ.get("INSECURE") == "1":
    TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE


def https(method, url, bearer=None, body=None):
    """One request; the status and the JSON of the answer."""
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    data = None
    if body is not None:
        headers["Content-Type"], data = "application/json", json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, context=TLS, timeout=90) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as problem:
        status, text = problem.code, problem.read()
    return status, json.loads(text) if text else None


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


class Message:
    """A SIP message as it was read."""

    def __init__(self, head, body):
        self.start, *lines = head.decode().split("\r\n")
        self.headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines]
        self.body = body

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name):
        return next(iter(self.all(name)), "")

    @property
    def method(self):
        return self.start.split(" ")[0]

    @property
    def status(self):
        return int(self.start.split(" ")[1]) if self.start.startswith("SIP/2.0 ") else None


class Flow:
    """One connection to Reveille, TCP or TLS, and the registration on it."""

    def __init__(self, attach, token):
        self.attach, self.token = attach, token
        host, port, transport = re.match(r"sips?:([^:;]+|\[[^\]]+\]):(\d+);transport=(\w+)", attach["uri"]).groups()
        self.transport = transport
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=60)
        if transport == "tls":
            self.socket = TLS.wrap_socket(self.socket, server_hostname=host.strip("[]"))
        self.here = "%s:%d" % self.socket.getsockname()[:2]
        self.contact = f"<sip:phone@{self.here};transport={transport}>"
        self.buffer = b""
        self.call_id, self.tag, self.cseq = uuid.uuid4().hex, uuid.uuid4().hex[:8], 0

    def send(self, start, headers, body=""):
        lines = [start] + [f"{name}: {value}" for name, value in headers] + [f"Content-Length: {len(body)}", "", body]
        self.socket.sendall("\r\n".join(lines).encode())

    def receive(self):
        """The next message; a ping (two empty lines) is answered with one."""
        while True:
            while self.buffer.startswith(b"\r\n"):
                if self.buffer.startswith(b"\r\n\r\n"):
                    self.socket.sendall(b"\r\n")
                    self.buffer = self.buffer[2:]
                self.buffer = self.buffer[2:]
            head, end, rest = self.buffer.partition(b"\r\n\r\n")
            if end:
                length = int(re.search(rb"(?im)^(?:content-length|l)\s*:\s*(\d+)", head).group(1))
                if len(rest) >= length:
                    self.buffer = rest[length:]
                    return Message(head, rest[:length])
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("Reveille has closed the connection")
            self.buffer += data

    def register(self, expires):
        """Section 3: REGISTER, 401, REGISTER, and what the last answer says."""
        authorization = []
        for _ in range(3):
            self.cseq += 1
            realm, aor = self.attach["realm"], self.attach["aor"]
            self.send(f"REGISTER sip:{realm} SIP/2.0", [
                ("Via", f"SIP/2.0/{self.transport.upper()} {self.here};branch=z9hG4bK{uuid.uuid4().hex};rport"),
                ("Max-Forwards", "70"), ("From", f"<{aor}>;tag={self.tag}"), ("To", f"<{aor}>"),
                ("Call-ID", self.call_id), ("CSeq", f"{self.cseq} REGISTER"),
                ("Contact", self.contact), ("Expires", str(expires))] + authorization)
            answer = self.receive()
            if answer.status != 401:
                return answer
            authorization = [("Authorization", self.digest(answer.get("WWW-Authenticate"), f"sip:{realm}"))]
        raise PermissionError("the token is not the current one: hand over again")

    def digest(self, challenge, uri):
        given = dict(re.findall(r'(\w+)="?([^",]+)', challenge))
        user, realm, nonce, cnonce = self.attach["username"], given["realm"], given["nonce"], uuid.uuid4().hex[:8]
        secret = md5(f"{user}:{realm}:{self.token}")
        response = md5(f"{secret}:{nonce}:00000001:{cnonce}:auth:" + md5(f"REGISTER:{uri}"))
        return (f'Digest username="{user}",realm="{realm}",nonce="{nonce}",uri="{uri}",algorithm=MD5,'
                f'qop=auth,nc=00000001,cnonce="{cnonce}",response="{response}"')

    def answer(self, request, status, headers=(), body=""):
        """Answers a request of theirs: Via and Record-Route as they came, To with our tag."""
        copied = [(name, value) for name, value in request.headers
                  if name.lower() in ("via", "from", "call-id", "cseq", "record-route")]
        to = request.get("To")
        if ";tag=" not in to and status != "100 Trying":
            to += f";tag={self.tag}"
        self.send(f"SIP/2.0 {status}", copied + [("To", to), *headers], body)


def take_one_call(flow, call):
    """Answers the call of the push (section 3); returns when it is over."""
    talking = False
    while True:
        request = flow.receive()
        print("<--", request.start, flush=True)
        if request.method == "INVITE":
            if not talking and request.get("Reveille-Call") != call:
                flow.answer(request, "486 Busy Here")
                continue
            talking = True
            contact = ("Contact", flow.contact)
            flow.answer(request, "180 Ringing", [contact])
            flow.answer(request, "200 OK", [contact, ("Content-Type", "application/sdp")], SDP)
        elif request.method == "CANCEL":
            flow.answer(request, "200 OK")
        elif request.method == "MESSAGE":
            print("text:", request.body.decode(errors="replace"), flush=True)
            flow.answer(request, "200 OK")
        elif request.method == "BYE":
            flow.answer(request, "200 OK")
            return
        elif request.method != "ACK" and request.status is None:
            flow.answer(request, "501 Not Implemented")


def main():
    api, app_key, mailbox, *rest = sys.argv[1:]
    account = dict(argument.split("=", 1) for argument in rest)
    device = uuid.uuid4()
    # Section 1. A real app keeps the device id for ever, and instance, token and attach until it takes the account back.
    status, held = https("POST", f"{api}/v1/instances", app_key, {
        "account": {"aor": account["aor"], "registrar": account["registrar"], "auth_username": account["user"],
                    "password": sys.stdin.readline().strip()},
        "device": {"id": f"urn:uuid:{device}", "platform": "android", "push": [
            {"for": "call", "provider": "sandbox", "app": APP, "token": str(device)}]},
        "lease_seconds": 3600})
    if status not in (200, 201, 202):
        sys.exit(f"not handed over: {status} {held}")
    instance, token = f"{api}/v1/instances/{held['instance']}", held["token"]
    print("handed over:", held["registration"]["state"], flush=True)
    try:
        # Section 2.
        push = None
        while push is None or push["payload"]["kind"] != "call":
            _, push = https("GET", f"{mailbox}/pushes/{device}?wait=30")
        wake = push["payload"]
        print("woken for", wake["call"], flush=True)
        # Section 3.
        flow = Flow({**held["attach"], "uri": wake["attach"]}, token)
        registered = flow.register(600)
        if registered.status != 200:
            sys.exit(f"not attached: {registered.start}")
        over = [value for value in registered.all("Reveille-Call") if value.startswith(wake["call"] + ";state=ended")]
        if over or time.time() > wake["expires_at"]:
            print("too late:", over, flush=True)
        else:
            take_one_call(flow, wake["call"])
        flow.register(0)
    finally:
        # Section 6.
        status, answer = https("DELETE", instance, token)
        print("erased:", status, "receipt" in (answer or {}), flush=True)


if __name__ == "__main__":
    main()
