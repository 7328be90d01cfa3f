#!/usr/bin/env python3
"""A modality by pynetdicom that never gives up: it begins steps, ends them and asks for commitment,
one study after the other, and says each again until it is answered.

  diligent.py PORT PREFIX    until standard input ends

Prints one JSON line for each yes: {"said": "create"|"set"|"action", "uid": UID, "study": UID}. A step whose
answer was lost is there already: 0111 to N-CREATE, and 0110 with Error ID A710 to N-SET, then are the yes. A
request for commitment is asked again under another Transaction UID.
"""
import faulthandler
import json
import sys
import threading
import time

from pynetdicom import AE

from keep_answers import keep_answers
from modality import COMMITMENT, COMMITMENT_INSTANCE, MPPS, data_set

IMAGE = "1.2.840.10008.5.1.4.1.1.2"
FINAL = 0xA710
PAUSE = 0.1  # Between two studies: a busy modality, not a flood.
PATIENCE = 60  # Seconds from the end of standard input to our own.


def begun(study):
    return data_set({
        "PatientID": "ORACLE", "PerformedProcedureStepID": "PPS1", "PerformedStationAETitle": "CT1",
        "PerformedProcedureStepStartDate": "20261122", "PerformedProcedureStepStartTime": "101500",
        "PerformedProcedureStepStatus": "IN PROGRESS", "Modality": "CT",
        "ScheduledStepAttributesSequence": [{"StudyInstanceUID": study}],
        "PerformedSeriesSequence": []})


def references(study):
    return [{"ReferencedSOPClassUID": IMAGE, "ReferencedSOPInstanceUID": f"{study}.1.{n}"}
            for n in range(1, 4)]


def ended(study):
    return data_set({
        "PerformedProcedureStepStatus": "COMPLETED", "PerformedProcedureStepEndDate": "20261122",
        "PerformedProcedureStepEndTime": "102000", "PerformedSeriesSequence": [
            {"SeriesInstanceUID": f"{study}.1", "ReferencedImageSequence": references(study)}]})


class Modality:
    def __init__(self, port):
        self.port, self.assoc, self.over = port, None, threading.Event()
        threading.Thread(target=self.wait_for_the_end, daemon=True).start()

    def wait_for_the_end(self):
        sys.stdin.read()
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        self.over.set()

    def end(self):
        """pynetdicom's threads would not let us end before nothing was said for ten seconds."""
        if self.assoc is not None and self.assoc.is_established:
            self.assoc.abort()

    def connect(self):
        if self.assoc is not None and self.assoc.is_established:
            return
        ae = AE("CT1")
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        ae.add_requested_context(MPPS)
        ae.add_requested_context(COMMITMENT)
        self.assoc = ae.associate("127.0.0.1", self.port, ae_title="HIKYAKU")
        if self.assoc.is_established:
            keep_answers(self.assoc)

    def until_answered(self, ask, known=()):
        """The try that was answered with yes; `known` are statuses that are one from the second on."""
        tries = 0
        while not self.over.is_set():
            self.connect()
            if not self.assoc.is_established:
                time.sleep(0.1)
                continue
            tries += 1
            try:
                status = ask(tries)
            except (RuntimeError, ValueError):  # The association ended under the request.
                continue
            if "Status" not in status:
                continue
            if status.Status == 0 or (tries > 1 and self.means(status) in known):
                return tries
            sys.exit(f"unexpected answer {status.Status:04X} to try {tries}: {status}")
        return None

    @staticmethod
    def means(status):
        if status.Status == 0x0110:
            return getattr(status, "ErrorID", None)
        return status.Status


def say(said, uid, study):
    print(json.dumps({"said": said, "uid": uid, "study": study}), flush=True)


def work(modality, prefix):
    n = 0
    while not modality.over.is_set():
        n += 1
        study, step = f"{prefix}.{n}", f"{prefix}.{n}.99"
        create = lambda _: modality.assoc.send_n_create(begun(study), MPPS, step)[0]
        if modality.until_answered(create, known=(0x0111,)) is None:
            return
        say("create", step, study)
        change = lambda _: modality.assoc.send_n_set(ended(study), MPPS, step)[0]
        if modality.until_answered(change, known=(FINAL,)) is None:
            return
        say("set", step, study)
        transaction = lambda attempt: f"{prefix}.{n}.77.{attempt}"
        ask = lambda attempt: modality.assoc.send_n_action(
            data_set({"TransactionUID": transaction(attempt),
                      "ReferencedSOPSequence": references(study)}),
            1, COMMITMENT, COMMITMENT_INSTANCE)[0]
        attempt = modality.until_answered(ask)
        if attempt is None:
            return
        say("action", transaction(attempt), study)
        time.sleep(PAUSE)


def main():
    modality = Modality(int(sys.argv[1]))
    try:
        work(modality, sys.argv[2])
    finally:
        modality.end()


if __name__ == "__main__":
    main()
