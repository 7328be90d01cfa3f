"""A reporting system: sends the messages of files over MLLP by python-hl7 on one connection, bytes as
they are, and prints one JSON line per answer."""

import json
import sys

import hl7
from hl7.client import MLLPClient


def answer_of(data):
    text = data.strip(b"\x0b\x1c\r").decode("utf-8", errors="replace")
    answer = hl7.parse(text + "\r")
    segments = [[str(f) for f in segment] for segment in answer]
    errors = ["|".join(s[1:]) for s in segments if s[0] == "ERR"]
    msa = next(s for s in segments if s[0] == "MSA")
    return {"code": msa[1], "id": msa[2], "text": msa[3] if len(msa) > 3 else "", "errors": errors}


def main():
    port, *files = sys.argv[1:]
    with MLLPClient("127.0.0.1", int(port)) as client:
        client.socket.settimeout(60)
        for file in files:
            with open(file, "rb") as opened:
                message = opened.read().replace(b"\r\n", b"\r").replace(b"\n", b"\r")
            data = client.send_message(message)
            while not data.endswith(b"\x1c\r"):
                data += client.socket.recv(65536)
            print(json.dumps(answer_of(data)), flush=True)


main()
