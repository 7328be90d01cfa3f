#!/usr/bin/env python3
"""Receivers of notices that are not ours: a web server by Python's http.server, and a mail server by
aiosmtpd whose mails are decoded by Python's email library.

Prints "listening PORT", then one JSON line for each thing received:
  web   {"status": answered, "method", "path", "headers": {lower case}, "body": text}
  mail  {"status": "250", "peer": [to], "from", "tls": bool, "user", "headers": {lower case, decoded},
         "text": decoded, "raw": as on the line}
--answers FILE holds the status that the web server gives, or the answer to DATA of the mail server
(such as "451 not now"); without the file 204 and 250.
"""
import argparse
import asyncio
import email
import email.policy
import json
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, SMTP


def arguments():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kind", choices=["web", "mail"])
    p.add_argument("port", type=int)
    p.add_argument("--answers", type=Path, required=True)
    p.add_argument("--cert")
    p.add_argument("--key")
    p.add_argument("--starttls", action="store_true", help="mail: TLS by STARTTLS, and no mail without")
    p.add_argument("--user")
    p.add_argument("--password")
    p.add_argument("--refuse", action="append", default=[], help="mail: no such recipient")
    return p.parse_args()


one_at_a_time = threading.Lock()


def say(line):
    with one_at_a_time:
        print(json.dumps(line), flush=True)


def tls(args):
    if not args.cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(args.cert, args.key)
    return context


def web(args):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            status = int(args.answers.read_text()) if args.answers.exists() else 204
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()
            say({"status": status, "method": self.command, "path": self.path, "body": body,
                 "headers": {k.lower(): v for k, v in self.headers.items()}})

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    context = tls(args)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(f"listening {args.port}", flush=True)
    server.serve_forever()


class Mail:
    def __init__(self, args):
        self.args = args

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.args.refuse:
            return "550 5.1.1 no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        answers = self.args.answers
        answer = answers.read_text().strip() if answers.exists() else "250 taken"
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        say({"status": answer.split()[0], "peer": envelope.rcpt_tos, "from": envelope.mail_from,
             "tls": server.transport.get_extra_info("ssl_object") is not None, "user": getattr(session.auth_data, "login", b"").decode()
             if session.auth_data else None,
             "headers": {k.lower(): str(v) for k, v in mail.items()},
             "text": mail.get_content(), "raw": envelope.content.decode("ascii")})
        return answer


def mail(args):
    def login(server, session, envelope, mechanism, data):
        good = (data.login.decode(), data.password.decode()) == (args.user, args.password)
        return AuthResult(success=good, handled=False, auth_data=data)

    context = tls(args)
    options = {"authenticator": login, "auth_required": True} if args.user else {}
    options["auth_require_tls"] = context is not None and args.starttls
    if args.starttls:
        options |= {"tls_context": context, "require_starttls": True}
    direct = context if context and not args.starttls else None
    controller = Controller(Mail(args), hostname="127.0.0.1", port=args.port, ssl_context=None,
                            server_kwargs=options)
    if direct is None:
        controller.start()
        print(f"listening {args.port}", flush=True)
        while True:
            time.sleep(3600)

    # The controller tries its server by plain TCP, which one with TLS does not answer.
    async def serve():
        loop = asyncio.get_running_loop()
        made = lambda: SMTP(Mail(args), hostname="127.0.0.1", loop=loop, **options)
        server = await loop.create_server(made, "127.0.0.1", args.port, ssl=direct)
        print(f"listening {args.port}", flush=True)
        await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    args = arguments()
    sys.exit(web(args) if args.kind == "web" else mail(args))
