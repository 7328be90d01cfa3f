"""A client of the API that keeps its connection: CA CERTIFICATE KEY PORT. Prints the status of one
call; after a line on standard input, that of another on the same connection, or `closed`."""

import http.client
import ssl
import sys

ca, certificate, key, port = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.check_hostname = False
context.load_cert_chain(certificate, key)
connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=context, timeout=60)
connection.connect()
connection.auto_open = 0


def call():
    try:
        connection.request("GET", "/missing")
        answer = connection.getresponse()
        answer.read()
        print(answer.status, flush=True)
    except (http.client.HTTPException, OSError):
        print("closed", flush=True)


call()
sys.stdin.readline()
call()
