#!/usr/bin/env python3
"""Documents and messages as libraries that are not ours read them: pydicom and python-hl7.

  facts FILE...       one JSON line per DICOM file: identifiers, names, and everything that its content
                      tree says (texts, meanings of codes, numbers) as "words", texts alone as "texts"
  same A B            whether two DICOM files have the same data set, element by element; prints
                      "same", or what differs
  sr OUT JSON         writes a signed Basic Text SR: {"charset": [terms], "study", "patient", "names",
                      "reader", "text", "written"}
  values FILE...      one JSON line per ORU^R01: placer, filler and patient, and everything that its
                      observations and notes say as "values"
"""
import datetime
import json
import re
import sys
import xml.etree.ElementTree

import hl7
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"


def words(item):
    """What a person reads in a content item and those below it; in which language it is, and who
    observed, is not among it."""
    if item.get("RelationshipType", "") in ("HAS CONCEPT MOD", "HAS OBS CONTEXT"):
        return
    if "TextValue" in item:
        yield str(item.TextValue)
    for code in item.get("ConceptCodeSequence", None) or []:
        yield str(code.get("CodeMeaning", ""))
    for number in item.get("MeasuredValueSequence", None) or []:
        if number.get("NumericValue") not in (None, ""):
            yield str(number.NumericValue)
    for below in item.get("ContentSequence", None) or []:
        yield from words(below)


def texts(item):
    """The texts alone, lines ending in LF."""
    if "TextValue" in item:
        yield str(item.TextValue).replace("\r\n", "\n")
    for below in item.get("ContentSequence", None) or []:
        yield from texts(below)


def facts(files):
    for file in files:
        dataset = dcmread(file, force=True)
        text = lambda name: str(dataset.get(name, "") or "")
        charset = dataset.get("SpecificCharacterSet", "") or ""
        names = text("PatientName").split("=")
        print(json.dumps({
            "file": file, "sop": text("SOPInstanceUID"), "class": text("SOPClassUID"),
            "study": text("StudyInstanceUID"), "patient": text("PatientID"),
            "issuer": text("IssuerOfPatientID"), "accession": text("AccessionNumber"),
            "charset": charset if isinstance(charset, str) else "\\".join(charset),
            "names": names, "words": [w for w in words(dataset) if w.strip()],
            "texts": list(texts(dataset)),
        }))


def same(a, b):
    a, b = (dcmread(file, force=True) for file in (a, b))
    if a == b:
        return print("same")
    for tag in sorted(set(a.keys()) | set(b.keys())):
        if a.get(tag) != b.get(tag):
            print(f"{tag}: {str(a.get(tag))[:300]} is not {str(b.get(tag))[:300]}")


def code(value, scheme, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def sr(out, said):
    said = json.loads(said)
    at = datetime.datetime.strptime(said["written"], "%Y%m%d%H%M%S")
    d = Dataset()
    d.SpecificCharacterSet = said["charset"]
    d.SOPClassUID, d.SOPInstanceUID = BASIC_TEXT_SR, said["study"] + ".88.1"
    d.StudyInstanceUID, d.SeriesInstanceUID = said["study"], said["study"] + ".88"
    d.StudyDate = d.ContentDate = at.strftime("%Y%m%d")
    d.StudyTime = d.ContentTime = at.strftime("%H%M%S")
    d.TimezoneOffsetFromUTC = "+0900"
    d.AccessionNumber, d.StudyID, d.ReferringPhysicianName = "", "1", ""
    d.Modality, d.Manufacturer, d.SeriesNumber, d.InstanceNumber = "SR", "pydicom", 1, 1
    d.PatientID, d.IssuerOfPatientID = said["patient"], "SITE"
    d.PatientName, d.PatientBirthDate, d.PatientSex = said["names"], "", ""
    d.ReferencedPerformedProcedureStepSequence = d.PerformedProcedureCodeSequence = []
    d.CompletionFlag, d.VerificationFlag = "COMPLETE", "VERIFIED"
    verifier = Dataset()
    verifier.VerifyingOrganization, verifier.VerifyingObserverName = "RC", said["reader"]
    verifier.VerificationDateTime = said["written"]
    verifier.VerifyingObserverIdentificationCodeSequence = []
    d.VerifyingObserverSequence = [verifier]
    d.ValueType, d.ContinuityOfContent = "CONTAINER", "SEPARATE"
    d.ConceptNameCodeSequence = [code("18748-4", "LN", "Diagnostic imaging study")]
    text = Dataset()
    text.RelationshipType, text.ValueType = "CONTAINS", "TEXT"
    text.ConceptNameCodeSequence = [code("121071", "DCM", "Finding")]
    text.TextValue = said["text"]
    d.ContentSequence = [text]
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.save_as(out, enforce_file_format=True)


def decoded(text):
    """A value without escapes: lines where it is laid out, the characters that stand for others."""
    text = re.sub(r"\\\.(br|sp|ce|in|ti|sk|fi|nf)[^\\]*\\", "\n", text)
    for escape, character in zip("FSTR", "|^&~"):
        text = text.replace(f"\\{escape}\\", character)
    return text.replace("\\H\\", "").replace("\\N\\", "").replace("\\E\\", "\\")


def narrative(document):
    """Titles and lines of the sections of a CDA document."""
    for section in xml.etree.ElementTree.fromstring(document.encode()).iter("{urn:hl7-org:v3}section"):
        for name in ["title", "text"]:
            for part in section.findall(f"{{urn:hl7-org:v3}}{name}"):
                yield from part.itertext()


def values(files):
    for file in files:
        with open(file, "rb") as opened:
            message = opened.read().replace(b"\r\n", b"\r").replace(b"\n", b"\r")
        parsed = hl7.parse(message.decode("utf-8"))
        field = lambda segment, n: str(segment[n]) if len(segment) > n else ""
        found, documents = [], []
        for at, segment in enumerate(parsed):
            name = str(segment[0])
            if name == "OBX" and field(segment, 2) == "ED":
                encoding, data = field(segment, 5).split("^", 4)[3:]
                if encoding.lower() == "base64":
                    documents.append(data)
                else:
                    found += narrative(decoded(data))
            elif name == "OBX":
                is_text = field(segment, 2) in ("TX", "FT", "ST", "")
                parts = [field(segment, 5)] if is_text else re.split(r"[\^~]", field(segment, 5))
                found += [line for part in parts for line in decoded(part).split("\n")]
            # A note below PID is about the patient.
            elif name == "NTE" and any(str(s[0]) == "OBR" for s in parsed[:at]):
                found.append(decoded(field(segment, 3)))
        first = lambda name, n: next((field(s, n) for s in parsed if str(s[0]) == name), "")
        print(json.dumps({
            "file": file, "placer": first("OBR", 2), "filler": first("OBR", 3),
            # Pointers to instances go with a report in places of their own.
            "patient": first("PID", 3),
            "values": [v for v in found if v.strip() and not re.fullmatch(r"\d+(\.\d+){4,}", v)],
            "documents": documents,
        }))


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    {"facts": lambda: facts(rest), "same": lambda: same(*rest), "sr": lambda: sr(*rest),
     "values": lambda: values(rest)}[what]()
