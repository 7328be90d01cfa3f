#!/usr/bin/env python3
"""A storage SCU by pynetdicom, not by us: sends files byte for byte in each file's own transfer
syntax and says what the receiver answered.

Prints one JSON line per object:
  {"sop", "class", "ts", "sha256", "length", "status"}
where sha256 and length are of the data set bytes put on the wire, and status is hexadecimal,
"refused" (no presentation context), "rejected RESULT,SOURCE,REASON", "none" (no answer), or
"aborted" (by us, as told). Exit code 0 when every object was answered with success or a warning.
"""
import argparse
import hashlib
import json
import sys
import threading
import time
import warnings
from io import BytesIO
from pathlib import Path

import pydicom
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.dimse_messages import C_STORE_RQ

from keep_answers import keep_answers

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
CONTEXTS_MAX = 128  # PS3.8 9.3.2.2: odd numbers from 1 to 255
print_lock = threading.Lock()


def arguments():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("host")
    p.add_argument("port", type=int)
    p.add_argument("paths", nargs="*", type=Path, help="files, or folders of files")
    p.add_argument("--aet", default="FOREIGN_SCU")
    p.add_argument("--aec", default="HIKYAKU")
    p.add_argument("--associations", type=int, default=1, help="how many at once")
    p.add_argument("--rate", type=float, help="objects per second and association")
    p.add_argument("--repeat", type=int, default=1, help="send everything so often")
    p.add_argument("--wrong-uid", metavar="UID", help="SOP Instance UID for the command instead")
    p.add_argument("--abort-at", type=int, metavar="BYTES",
                   help="abort the association after so many bytes of each data set")
    p.add_argument("--synthetic", type=int, metavar="BYTES",
                   help="one multi-frame object of about this size, made on the fly")
    p.add_argument("--timeout", type=float, default=60)
    return p.parse_args()


class Item:
    """One object to send: who it is, and its data set bytes in pieces."""

    def __init__(self, sop_class, uid, syntax, pieces):
        self.sop_class, self.uid, self.syntax, self.pieces = sop_class, uid, syntax, pieces


def from_file(path):
    """As senders do, by the data set's own identifiers, which some files contradict in their meta
    information. What an odd file lacks is made up."""
    raw = path.read_bytes()
    start = end_of_meta(raw)
    tags = ["SOPClassUID", "SOPInstanceUID"]
    try:
        ds = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=tags)
        meta = ds.file_meta
    except Exception:
        ds = meta = pydicom.Dataset()
    sop_class = ds.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or CT
    made_up = f"2.25.{int.from_bytes(hashlib.sha256(raw).digest()[:15], 'big')}"
    uid = ds.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID") or made_up
    syntax = meta.get("TransferSyntaxUID") or syntax_of(raw[start:start + 6])
    return Item(str(sop_class), str(uid), str(syntax), lambda size: (
        raw[i:i + size] for i in range(start, len(raw), size)))


def end_of_meta(raw):
    """Where the data set begins: behind the last element of group 0002 (PS3.10 7.1)."""
    at = 132 if raw[128:132] == b"DICM" else 0
    while raw[at:at + 2] == b"\2\0":
        if raw[at + 4:at + 6] in (b"OB", b"OW", b"UN", b"UT", b"SQ"):
            at += 12 + int.from_bytes(raw[at + 8:at + 12], "little")
        else:
            at += 8 + int.from_bytes(raw[at + 6:at + 8], "little")
    return at


def syntax_of(first):
    """A guess by the first element."""
    if first[4:6].isalpha():
        return EXPLICIT if first[1:2] == b"\0" else "1.2.840.10008.1.2.2"
    return "1.2.840.10008.1.2"


def synthetic(length):
    """A multi-frame CT of 512 x 512 x 16 bit whose pixels are a pattern, made as it is sent."""
    frames = max(1, length // 524288)
    uid = f"2.25.{time.time_ns()}"
    ds = pydicom.Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT, uid
    ds.Modality, ds.PatientID, ds.StudyInstanceUID = "CT", "SYNTHETIC", uid + ".1"
    ds.SeriesInstanceUID, ds.NumberOfFrames = uid + ".2", str(frames)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = 512
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, ds, implicit_vr=False, little_endian=True)
    pixels = frames * 524288
    head = buffer.getvalue() + b"\xe0\x7f\x10\x00OW\0\0" + pixels.to_bytes(4, "little")
    pattern = bytes((i * 7 + (i >> 8)) & 255 for i in range(65536)) * 2

    def pieces(size):
        rest, at = head, 0
        while rest or at < pixels:
            while len(rest) < size and at < pixels:
                n = min(65536, pixels - at)
                shift = (at // 65536) % 65536
                rest += pattern[shift:shift + n]
                at += n
            yield rest[:size]
            rest = rest[size:]

    return Item(CT, uid, EXPLICIT, pieces)


def send(assoc, context, item, number, args):
    """As `send_paused`, with pynetdicom's own reader out of the way."""
    assoc._reactor_checkpoint.clear()
    while not assoc._is_paused:
        time.sleep(0.001)
    try:
        return send_paused(assoc, context, item, number, args)
    finally:
        assoc._reactor_checkpoint.set()


def send_paused(assoc, context, item, number, args):
    """One C-STORE; the fragments are written here so that no toolkit touches the bytes."""
    request = C_STORE()
    request.MessageID = number
    request.AffectedSOPClassUID = item.sop_class
    request.AffectedSOPInstanceUID = args.wrong_uid or item.uid
    request.Priority = 2
    request.DataSet = BytesIO(b"\0")  # only says that one follows
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    pdu = assoc.acceptor.maximum_length or 65536
    command = [p for p in message.encode_msg(context.context_id, pdu)
               if p.presentation_data_value_list[0][1][0] & 1]
    for fragment in command:
        assoc.dul.send_pdu(fragment)
    digest, length, last = hashlib.sha256(), 0, None

    def put(flags, piece):
        fragment = P_DATA()
        fragment.presentation_data_value_list.append((context.context_id, flags + piece))
        while assoc.dul.to_provider_queue.qsize() > 16 and assoc.is_established:
            time.sleep(0.0005)
        assoc.dul.send_pdu(fragment)

    for piece in item.pieces(min(pdu, 65536) - 6):
        if last is not None:
            put(b"\0", last)
        digest.update(piece)
        length += len(piece)
        last = piece
        if args.abort_at is not None and length >= args.abort_at:
            assoc.abort()
            return digest, length, "aborted"
        if not assoc.is_established:
            return digest, length, "none"
    put(b"\2", last if last is not None else b"")
    _, answer = assoc.dimse.get_msg(block=True)
    status = "none" if answer is None or answer.Status is None else f"{answer.Status:04X}"
    return digest, length, status


def report(item, status, digest=None, length=None):
    with print_lock:
        print(json.dumps({"sop": item.uid, "class": item.sop_class, "ts": item.syntax,
                          "sha256": digest and digest.hexdigest(), "length": length,
                          "status": status}), flush=True)
    return status[:1] == "B" or status in ("0000", "0001", "0107", "0116")


def associate(args, items):
    ae = AE(args.aet)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = args.timeout
    ae.maximum_pdu_size = 65536
    for sop_class, syntax in list(dict.fromkeys((i.sop_class, i.syntax) for i in items)):
        ae.add_requested_context(sop_class, syntax)
    assoc = ae.associate(args.host, args.port, ae_title=args.aec)
    if assoc.is_established:
        keep_answers(assoc)
    return assoc


def run(args, items, results):
    """Sends `items` over one association after another, each with at most 128 contexts."""
    while items:
        pairs, batch = set(), []
        for item in items:
            pairs.add((item.sop_class, item.syntax))
            if len(pairs) > CONTEXTS_MAX:
                break
            batch.append(item)
        items = items[len(batch):]
        results.append(run_batch(args, batch))


def run_batch(args, batch):
    assoc, good, number = associate(args, batch), True, 0
    for item in batch:
        if not assoc.is_established:
            if assoc.is_rejected:
                r = assoc.acceptor.primitive
                good &= report(item, f"rejected {r.result},{r.result_source},{r.diagnostic}")
                continue
            assoc = associate(args, batch)
            if not assoc.is_established:
                good &= report(item, "none")
                continue
        context = next((c for c in assoc.accepted_contexts
                        if (c.abstract_syntax, c.transfer_syntax[0])
                        == (item.sop_class, item.syntax)), None)
        if context is None:
            good &= report(item, "refused")
            continue
        number = number % 65535 + 1
        digest, length, status = send(assoc, context, item, number, args)
        good &= report(item, status, digest, length)
        if args.rate:
            time.sleep(1 / args.rate)
    if assoc.is_established:
        assoc.release()
    return good


def main():
    args = arguments()
    warnings.simplefilter("ignore")  # odd files are what the tests are about
    files = [f for p in args.paths for f in (sorted(x for x in p.rglob("*") if x.is_file())
                                              if p.is_dir() else [p])]
    items = [from_file(f) for f in files] * args.repeat
    if args.synthetic:
        items.append(synthetic(args.synthetic))
    results, n = [], args.associations
    threads = [threading.Thread(target=run, args=(args, items[i::n], results)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    sys.exit(0 if all(results) and results else 1)


if __name__ == "__main__":
    main()
