#!/usr/bin/env python3
"""A RIS, an archive and a commitment SCU by pynetdicom, not by us: SCP of what our SCUs ask.

Prints "listening PORT", then one JSON line per request with what it said, as "do": "create", "set",
"event", "find", "cancelled", "move", "get". Ends when stdin closes.
"""
import argparse
import json
import os
import sys
import threading
import time

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage

MPPS = "1.2.840.10008.3.1.2.3.3"
COMMITMENT = "1.2.840.10008.1.20.1"
IAN = "1.2.840.10008.5.1.4.33"
WORKLIST = "1.2.840.10008.5.1.4.31"
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{n}" for n in (1, 2, 3))


def arguments():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--status", default="0000", metavar="HEX", help="answer to N- services")
    p.add_argument("--matches", type=int, default=3, help="how many a query finds")
    p.add_argument("--final", metavar="HEX", help="how a query ends; default success")
    p.add_argument("--pace", type=float, default=0, metavar="SECONDS", help="between matches")
    p.add_argument("--deaf", action="store_true", help="does not heed that a query is cancelled")
    p.add_argument("--silent", action="store_true", help="never answers")
    p.add_argument("--strict", action="store_true",
                   help="rejects who wants to report an event without the SCP role")
    p.add_argument("--refuse-role", action="store_true")
    p.add_argument("--charset", default="ISO_IR 192")
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--steps", action="store_true",
                   help="remembers steps: 0111, 0112, and 0110 with A710 after their end")
    p.add_argument("--abort-first", type=int, default=0, metavar="N",
                   help="takes each of the first N N- requests, and aborts instead of answering")
    p.add_argument("--forget", action="store_true",
                   help="has lost the first step that it was told by the time it changes")
    p.add_argument("--images", type=int, default=2, help="how many a C-GET or C-MOVE has")
    return p.parse_args()


def plain(set_):
    out = {}
    for element in set_ or []:
        key = element.keyword or str(element.tag)
        out[key] = ([plain(item) for item in element.value] if element.VR == "SQ"
                    else str(element.value))
    return out


class Services:
    def __init__(self, args):
        self.args, self.lock = args, threading.Lock()
        self.steps, self.aborts, self.forgets = {}, args.abort_first, args.forget

    def say(self, **line):
        with self.lock:
            print(json.dumps(line), flush=True)

    def verdict(self):
        if self.args.silent:
            time.sleep(10**6)
        return int(self.args.status, 16)

    def judged(self, event, uid, begins, set_):
        """What a RIS answers that keeps steps; the line says what it did with the request."""
        ended = self.steps.get(uid) in ("COMPLETED", "DISCONTINUED")
        if not begins and self.forgets and uid in self.steps:
            del self.steps[uid]
            self.forgets = False
        answer = int(self.args.status, 16)
        if self.args.steps:
            if begins and uid in self.steps:
                answer = 0x0111
            elif not begins and uid not in self.steps:
                answer = 0x0112
            elif not begins and ended:
                answer = Dataset()
                answer.Status, answer.ErrorID = 0x0110, 0xA710
        if answer == 0:
            self.steps[uid] = str(set_.get("PerformedProcedureStepStatus", "")) \
                or self.steps.get(uid, "")
        status = answer if isinstance(answer, int) else int(answer.Status)
        self.say(do="create" if begins else "set", instance=uid, status=f"{status:04X}",
                 data=plain(set_), calling=event.assoc.requestor.ae_title)
        if self.aborts > 0:
            self.aborts -= 1
            event.assoc.abort()
        if self.args.silent:
            time.sleep(10**6)
        return answer

    def requested(self, event):
        role = event.assoc.requestor.role_selection.get(COMMITMENT)
        contexts = event.assoc.requestor.requested_contexts
        commits = any(c.abstract_syntax == COMMITMENT for c in contexts)
        if self.args.strict and commits and not (role and role.scp_role and not role.scu_role):
            event.assoc.acse.send_reject(1, 1, 1)
            event.assoc.kill()

    def create(self, event):
        uid = str(event.request.AffectedSOPInstanceUID or "")
        answer = self.judged(event, uid, True, event.attribute_list)
        out = None
        if not uid:
            out = Dataset()
            out.AffectedSOPInstanceUID = "2.25.42"
        return answer, out

    def set(self, event):
        uid = str(event.request.RequestedSOPInstanceUID)
        return self.judged(event, uid, False, event.modification_list), None

    def event(self, event):
        self.say(do="event", type=event.event_type, data=plain(event.event_information))
        return self.verdict(), None

    def find(self, event):
        self.say(do="find", data=plain(event.identifier))
        self.verdict()
        for n in range(self.args.matches):
            time.sleep(self.args.pace)
            if event.is_cancelled and not self.args.deaf:
                self.say(do="cancelled", after=n)
                yield 0xFE00, None
                return
            out = Dataset()
            out.SpecificCharacterSet = self.args.charset
            out.PatientName = "Yamada^Tarou=山田^太郎"
            out.PatientID = str(n)
            yield 0xFF00, out
        if self.args.final:
            yield int(self.args.final, 16), None

    def image(self, n):
        out = Dataset()
        out.SOPClassUID, out.SOPInstanceUID = CTImageStorage, f"1.2.3.{n}"
        out.PatientID = "1"
        out.PixelData = bytes(200_000)
        out["PixelData"].VR = "OW"
        out.Rows = out.Columns = 100
        out.BitsAllocated = 16
        out.file_meta = FileMetaDataset()
        out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return out

    def move(self, event):
        self.say(do="move", to=str(event.move_destination).strip(), data=plain(event.identifier))
        self.verdict()
        yield None, None  # nobody is known: A801

    def get(self, event):
        self.say(do="get", data=plain(event.identifier))
        self.verdict()
        yield self.args.images
        for n in range(self.args.images):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, self.image(n)


def main():
    args = arguments()
    services = Services(args)
    ae = AE("FOREIGN")
    ae.dimse_timeout = ae.network_timeout = None
    for uid in (MPPS, IAN, WORKLIST, FIND, MOVE, GET):
        ae.add_supported_context(uid)
    ae.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
    scp = not args.refuse_role
    ae.add_supported_context(COMMITMENT, scu_role=not scp, scp_role=scp)
    handlers = [(evt.EVT_REQUESTED, services.requested), (evt.EVT_N_CREATE, services.create),
                (evt.EVT_N_SET, services.set), (evt.EVT_N_EVENT_REPORT, services.event),
                (evt.EVT_C_FIND, services.find), (evt.EVT_C_MOVE, services.move),
                (evt.EVT_C_GET, services.get)]
    server = ae.start_server(("127.0.0.1", args.port), block=False, evt_handlers=handlers)
    print("listening", server.socket.getsockname()[1], flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
