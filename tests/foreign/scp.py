#!/usr/bin/env python3
"""A storage SCP by pynetdicom, not by us: says what really arrived.

Prints "listening PORT", then one JSON line per object:
  {"sop", "class", "ts", "sha256", "length", "context", "status", "calling", "file"}
where sha256 and length are of the data set bytes exactly as received (no file meta). With --out
each object's bytes go to NUMBER.dataset there. Ends on SIGTERM or when stdin closes (--stdin).
"""
import argparse
import hashlib
import json
import os
import signal
import sys
import threading
import time

from pynetdicom import AE, _config, evt
from pynetdicom.presentation import build_context

VERIFICATION = "1.2.840.10008.1.1"
NO_SYNTAX = "2.25.1"  # nobody proposes it


def arguments():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--port", type=int, default=0, help="0: any free port")
    p.add_argument("--ae", default="FOREIGN")
    p.add_argument("--out", help="folder for the received data sets")
    p.add_argument("--max-pdu", type=int, default=65536, help="0: unlimited")
    p.add_argument("--status", action="append", default=[], metavar="UID=HEX",
                   help="answer this SOP Instance UID with this status")
    p.add_argument("--every", metavar="N=HEX", help="answer every Nth object with this status")
    p.add_argument("--first", metavar="N=HEX", help="answer the first N tries of each object so")
    p.add_argument("--delay", type=float, default=0, help="seconds before each answer")
    p.add_argument("--syntax", action="append", default=[], metavar="UID",
                   help="accept only these transfer syntaxes")
    p.add_argument("--refuse-class", action="append", default=[], metavar="UID")
    p.add_argument("--reject", metavar="RESULT,SOURCE,REASON", help="reject every association")
    p.add_argument("--reject-first", type=int, default=0, metavar="N",
                   help="reject the first N associations only (with --reject)")
    p.add_argument("--abort-after", type=int, metavar="BYTES",
                   help="abort each association after so many bytes")
    p.add_argument("--abort-uid", action="append", default=[], metavar="UID",
                   help="abort instead of answering this SOP Instance UID")
    p.add_argument("--hang-after", type=int, metavar="N", help="take N objects, then never answer")
    p.add_argument("--stdin", action="store_true", help="end when stdin closes")
    return p.parse_args()


class Scp:
    def __init__(self, args):
        self.args = args
        self.lock = threading.Lock()
        self.count = 0
        self.associations = 0
        self.tries = {}
        self.bytes = {}
        self.status = dict(s.split("=") for s in args.status)
        if args.out:
            os.makedirs(args.out, exist_ok=True)

    def requested(self, event):
        """Accepts what is proposed, private classes included, but for what the options refuse."""
        assoc, args = event.assoc, self.args
        with self.lock:
            self.associations += 1
            number = self.associations
        if args.reject and (not args.reject_first or number <= args.reject_first):
            assoc.acse.send_reject(*(int(n) for n in args.reject.split(",")))
            assoc.kill()
            return
        contexts = {}
        for cx in assoc.requestor.primitive.presentation_context_definition_list:
            if cx.abstract_syntax in args.refuse_class:
                continue
            # A class that is not listed at all would be accepted in any syntax.
            contexts.setdefault(cx.abstract_syntax, [])
            wanted = [t for t in cx.transfer_syntax if not args.syntax or t in args.syntax]
            if cx.abstract_syntax == VERIFICATION:
                wanted = cx.transfer_syntax
            contexts[cx.abstract_syntax].extend(wanted)
        assoc.acceptor.supported_contexts = [
            build_context(a, list(dict.fromkeys(t)) or [NO_SYNTAX]) for a, t in contexts.items()]

    def received(self, event):
        """Counts bytes; aborts in the middle when told to."""
        if self.args.abort_after is None:
            return
        seen = self.bytes[event.assoc] = self.bytes.get(event.assoc, 0) + len(event.data)
        if seen > self.args.abort_after:
            event.assoc.abort()

    def verdict(self, uid):
        args = self.args
        with self.lock:
            self.count += 1
            number = self.count
            self.tries[uid] = self.tries.get(uid, 0) + 1
            tries = self.tries[uid]
        if args.hang_after is not None and number > args.hang_after:
            time.sleep(10**6)
        status = self.status.get(uid, "0000")
        if args.every:
            n, code = args.every.split("=")
            status = code if number % int(n) == 0 else status
        if args.first:
            n, code = args.first.split("=")
            status = code if tries <= int(n) else status
        return number, int(status, 16)

    def store(self, event):
        request = event.request
        data = request.DataSet.getvalue()
        uid = str(request.AffectedSOPInstanceUID)
        number, status = self.verdict(uid)
        line = {"sop": uid, "class": str(request.AffectedSOPClassUID),
                "ts": str(event.context.transfer_syntax),
                "sha256": hashlib.sha256(data).hexdigest(), "length": len(data),
                "context": event.context.context_id, "status": f"{status:04X}",
                "calling": event.assoc.requestor.ae_title}
        if self.args.out:
            line["file"] = f"{number}.dataset"
            with open(os.path.join(self.args.out, line["file"]), "wb") as f:
                f.write(data)
        if uid in self.args.abort_uid:
            line["status"] = "abort"
        with self.lock:
            print(json.dumps(line), flush=True)
        if uid in self.args.abort_uid:
            event.assoc.abort()
        time.sleep(self.args.delay)
        return status


def main():
    args = arguments()
    # Private SOP classes too; then again, none could be refused.
    _config.UNRESTRICTED_STORAGE_SERVICE = not (args.refuse_class or args.syntax)
    ae = AE(args.ae)
    ae.maximum_pdu_size = args.max_pdu
    ae.maximum_associations = 100
    ae.network_timeout = ae.dimse_timeout = None
    ae.add_supported_context(VERIFICATION)
    scp = Scp(args)
    handlers = [(evt.EVT_REQUESTED, scp.requested), (evt.EVT_C_STORE, scp.store),
                (evt.EVT_DATA_RECV, scp.received)]
    server = ae.start_server(("127.0.0.1", args.port), block=False, evt_handlers=handlers)
    print("listening", server.socket.getsockname()[1], flush=True)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if args.stdin:
        sys.stdin.read()
        os._exit(0)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
