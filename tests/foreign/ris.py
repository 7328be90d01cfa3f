"""A RIS that takes orders: HL7 over MLLP by python-hl7. Reports one JSON line per message."""

import argparse
import asyncio
import hashlib
import json
import re
import ssl

import hl7
from hl7.mllp import start_hl7_server

ENCODINGS = {"": "ascii", "UNICODE UTF-8": "utf-8", "~ISO IR87": "iso2022_jp"}


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--answers",
        default="AA",
        help="one word for each message, the last for all that follow: a code of table 0008, "
        "silent, close, other (AA to another message), twice (CA and then AA), garbage",
    )
    parser.add_argument("--text", default="", help="MSA-3")
    parser.add_argument("--error", default="", help="ERR-2 and ERR-3, with | between them")
    parser.add_argument(
        "--large",
        action="store_true",
        help="takes messages of up to 64 MiB, and reports their SHA-256 in the place of their bytes "
        "and fields",
    )
    parser.add_argument("--tls", nargs=3, metavar=("CERTIFICATE", "KEY", "CLIENTS"))
    return parser.parse_args()


def fields(message):
    """Every field by its name, such as ORC-1, as it was written; one text for each segment."""
    found = {}
    for segment in message:
        name = str(segment[0])
        for n in range(1, len(segment)):
            found.setdefault(f"{name}-{n}", []).append(str(segment[n]))
    return found


def decoded(block, charset):
    """A message as a Windows machine reads it: ISO-2022-JP with the characters that NEC and IBM have
    put into free rows of JIS X 0208, which Python's own codec refuses."""
    try:
        return block.decode(ENCODINGS[charset])
    except UnicodeDecodeError:
        if ENCODINGS[charset] != "iso2022_jp":
            raise
    kanji = False
    text = ""
    for piece in re.split(rb"\x1b(?:(?=\$B)\$|\((?=B))B", block):
        text += (b"".join(map(shifted, piece[::2], piece[1::2])).decode("cp932") if kanji
                 else piece.decode("ascii"))
        kanji = not kanji
    return text


def shifted(a, b):
    """A code of JIS X 0208 in Shift_JIS."""
    row, cell = (a - 0x21) // 2, b + (0x1F + (b >= 0x60) if a % 2 else 0x7E)
    return bytes([row + (0x81 if row < 31 else 0xC1), cell])


class Ris:
    def __init__(self, args):
        self.answers = args.answers.split(",")
        self.args = args
        self.connections = 0

    def answer(self, message, word):
        control_id = str(message.segment("MSH")(10))
        ack = str(message.create_ack("AA" if word in ("other", "twice") else word))
        if word == "other":
            ack = ack.replace(f"|{control_id}", "|SOMETHING-ELSE")
        lines = ack.rstrip("\r").split("\r")
        if self.args.text and word not in ("AA", "CA"):
            lines[1] += "|" + self.args.text
        if self.args.error and word not in ("AA", "CA"):
            lines.append("ERR||" + self.args.error)
        return "\r".join(lines) + "\r"

    async def serve(self, reader, writer):
        self.connections += 1
        connection = self.connections
        while True:
            try:
                block = await reader.readblock()
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            charset = block.split(b"\r")[0].split(b"|")
            charset = charset[17].decode() if len(charset) > 17 else ""
            message = hl7.parse(decoded(block, charset))
            word = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            told = {
                "id": str(message.segment("MSH")(10)),
                "fields": fields(message),
                "hex": block.hex(),
                "answer": word,
                "connection": connection,
            }
            if self.args.large:
                told["fields"] = {}
                told["hex"] = hashlib.sha256(block).hexdigest()
            print(json.dumps(told), flush=True)
            if word == "close":
                break
            if word == "silent":
                continue
            if word == "garbage":
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                continue
            if word == "twice":
                first = str(message.create_ack("CA"))
                writer.writeblock(first.encode(ENCODINGS[charset]))
            writer.writeblock(self.answer(message, word).encode(ENCODINGS[charset]))
            await writer.drain()
        writer.close()


async def main():
    args = options()
    context = None
    if args.tls:
        certificate, key, clients = args.tls
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(certificate, key)
    ris = Ris(args)
    limit = (64 if args.large else 1) << 20
    server = await start_hl7_server(ris.serve, "127.0.0.1", args.port, ssl=context, limit=limit)
    print(f"listening {args.port}", flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
