#!/usr/bin/env python3
"""A modality by pynetdicom, not by us: SCU of performed procedure steps, storage commitment,
availability notices and worklists.

Reads one JSON array of steps from standard input, does them in order on one association, and prints
one JSON line per answer:
  {"status": "0000", "error_id": N or null, "comment", "instance", "attributes": ["(gggg,eeee)"]}
and one {"event": TYPE, "data": {...}} for each event that is reported to it, on this association or
on one that is opened to --listen. Steps:
  {"do": "create"|"set", "class", "instance", "data"}    N-CREATE, N-SET
  {"do": "action", "data", "type": 1, "instance"}        N-ACTION of storage commitment
  {"do": "find", "data", "cancel_after": N, "abort_after": N}
                                                         C-FIND of the worklist: a line per match
  {"do": "bare", "field": N, "class"}                    a request without its data set
  {"do": "events", "n": N}                               waits until N events were reported
  {"do": "received"}                                     prints {"received": [...]}: the messages
                                                         that came, in their order on the line
  {"do": "sleep", "seconds": S}
  {"do": "release"}, {"do": "abort"}                     ends the association now
Data sets are JSON by keyword; a list of objects is a sequence. Exit code 0 when all was done.
"""
import argparse
import faulthandler
import json
import sys
import threading
import time

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.dimse_primitives import C_FIND, N_ACTION, N_CREATE, N_SET
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from keep_answers import keep_answers

MPPS = "1.2.840.10008.3.1.2.3.3"
COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
IAN = "1.2.840.10008.5.1.4.33"
WORKLIST = "1.2.840.10008.5.1.4.31"
PATIENCE = 30
WHOLE = 100  # Seconds that all may take; who takes longer says where it hangs, and ends.


def arguments():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("port", type=int)
    p.add_argument("--ae", default="CT1")
    p.add_argument("--called", default="HIKYAKU")
    p.add_argument("--syntax", action="append", default=[], metavar="UID")
    p.add_argument("--event-status", default="0000", metavar="HEX")
    p.add_argument("--event-delay", type=float, default=0, metavar="SECONDS")
    p.add_argument("--listen", type=int, help="takes events here too")
    p.add_argument("--strict", action="store_true",
                   help="rejects associations to --listen that do not propose the SCP role")
    p.add_argument("--no-role", action="store_true", help="refuses the SCP role at --listen")
    return p.parse_args()


def data_set(values):
    set_ = Dataset()
    for keyword, value in values.items():
        if isinstance(value, list) and all(isinstance(v, dict) for v in value):
            value = [data_set(v) for v in value]
        setattr(set_, keyword, value)
    return set_


def plain(set_):
    """By keyword; a sequence is a list of objects."""
    if set_ is None:
        return None
    out = {}
    for element in set_:
        key = element.keyword or str(element.tag)
        out[key] = ([plain(item) for item in element.value] if element.VR == "SQ"
                    else str(element.value))
    return out


class Modality:
    def __init__(self, args):
        self.args, self.lock, self.events, self.received = args, threading.Lock(), 0, []
        self.reporting = []
        self.changed = threading.Condition()

    def say(self, line):
        with self.lock:
            print(json.dumps(line), flush=True)

    def event(self, event):
        self.reporting.append(threading.current_thread())
        time.sleep(self.args.event_delay)
        own = event.assoc.is_requestor
        self.say({"event": event.event_type, "data": plain(event.event_information),
                  "own_association": own})
        with self.changed:
            self.events += 1
            self.changed.notify_all()
        return int(self.args.event_status, 16), None

    def finish_reports(self):
        """An answer to an event that is not on its way when we release ends pynetdicom's machine."""
        for thread in list(self.reporting):
            thread.join(PATIENCE)

    def message(self, event):
        # Called where messages are taken off the line, one after the other. Lines are printed by
        # whoever waited for them, in any order.
        self.received.append(type(event.message).__name__)

    def requested(self, event):
        items = event.assoc.requestor.role_selection
        role = items.get(COMMITMENT)
        if self.args.strict and not (role and role.scp_role):
            event.assoc.acse.send_reject(1, 1, 1)
            event.assoc.kill()

    def listen(self):
        ae = AE(self.args.ae)
        role = not self.args.no_role
        ae.add_supported_context(COMMITMENT, scu_role=not role, scp_role=role)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.event), (evt.EVT_REQUESTED, self.requested)]
        return ae.start_server(("127.0.0.1", self.args.listen), block=False, evt_handlers=handlers)

    def answer(self, status, set_=None, instance=None):
        get = lambda key: getattr(status, key, None)
        tags = get("AttributeIdentifierList") or get("OffendingElement") or []
        tags = tags if hasattr(tags, "__iter__") and not isinstance(tags, (str, int)) else [tags]
        self.say({"status": f"{status.Status:04X}" if "Status" in status else "none",
                  "error_id": get("ErrorID"), "comment": get("ErrorComment"),
                  "attributes": [str(t) for t in tags], "data": plain(set_), "instance": instance})

    def bare(self, assoc, step):
        """A request whose command set says that no data set follows."""
        rq = {0x20: C_FIND, 0x120: N_SET, 0x130: N_ACTION, 0x140: N_CREATE}[step["field"]]()
        rq.MessageID = 77
        uid, instance = step["class"], step.get("instance", "1.2.3")
        if step["field"] in (0x20, 0x140):
            rq.AffectedSOPClassUID = uid
        if step["field"] == 0x20:
            rq.Priority = 2
        if step["field"] == 0x140:
            rq.AffectedSOPInstanceUID = instance
        if step["field"] in (0x120, 0x130):
            rq.RequestedSOPClassUID, rq.RequestedSOPInstanceUID = uid, instance
        if step["field"] == 0x130:
            rq.ActionTypeID = 1
        context = next(c for c in assoc.accepted_contexts if c.abstract_syntax == uid)
        assoc._reactor_checkpoint.clear()
        assoc.dimse.send_msg(rq, context.context_id)
        _, rsp = assoc.dimse.get_msg(block=True)
        assoc._reactor_checkpoint.set()
        status = Dataset()
        status.Status = rsp.Status
        self.answer(status)

    def do(self, assoc, step):
        kind = step["do"]
        data = data_set(step.get("data", {}))
        if kind == "create":
            status, set_ = assoc.send_n_create(data, step["class"], step.get("instance"))
            self.answer(status, set_)
        elif kind == "set":
            self.answer(*assoc.send_n_set(data, step["class"], step["instance"]))
        elif kind == "action":
            instance = step.get("instance", COMMITMENT_INSTANCE)
            status, set_ = assoc.send_n_action(data, step.get("type", 1), COMMITMENT, instance)
            self.answer(status, set_)
        elif kind == "find":
            for n, (status, set_) in enumerate(assoc.send_c_find(data, WORKLIST, msg_id=5)):
                self.answer(status, set_)
                if n + 1 == step.get("cancel_after"):
                    assoc.send_c_cancel(5, query_model=WORKLIST)
                if n + 1 == step.get("abort_after"):
                    assoc.abort()
                    return
        elif kind == "bare":
            self.bare(assoc, step)
        elif kind == "events":
            with self.changed:
                if not self.changed.wait_for(lambda: self.events >= step["n"], PATIENCE):
                    sys.exit("the events did not come")
        elif kind == "received":
            self.say({"received": self.received})
        elif kind == "sleep":
            time.sleep(step["seconds"])
        elif kind == "release":
            self.finish_reports()
            assoc.release()
        elif kind == "abort":
            assoc.abort()
        else:
            sys.exit(f"unknown step {kind}")


def main():
    faulthandler.dump_traceback_later(WHOLE, exit=True)
    args = arguments()
    steps = json.load(sys.stdin)
    modality = Modality(args)
    if args.listen:
        modality.listen()
    ae = AE(args.ae)
    ae.dimse_timeout = ae.network_timeout = PATIENCE
    for uid in (MPPS, COMMITMENT, IAN, WORKLIST):
        ae.add_requested_context(uid, args.syntax or None)
    assoc = ae.associate("127.0.0.1", args.port, ae_title=args.called,
                         evt_handlers=[(evt.EVT_N_EVENT_REPORT, modality.event),
                                       (evt.EVT_DIMSE_RECV, modality.message)])
    if not assoc.is_established:
        sys.exit("no association")
    keep_answers(assoc)
    for step in steps:
        modality.do(assoc, step)
    modality.finish_reports()
    if assoc.is_established:
        assoc.release()


if __name__ == "__main__":
    main()
