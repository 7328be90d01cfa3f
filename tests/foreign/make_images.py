#!/usr/bin/env python3
"""Makes DICOM files by pydicom, not by us: small images of a patient with a name, and rejection notes.

  make_images.py OUT image --study UID --numbers 1,2,3 [--patient ID --name NAME --birth DATE]
  make_images.py OUT note --study UID --number N --code 113037 --rejects 1,2
Images are the instances STUDY.1.N of series STUDY.1, as the tests' own sender makes them; a note is
the instance STUDY.9.N, a Key Object Selection Document (IHE RAD TF-3 4.66).
"""
import argparse
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT, KOS = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.59"
MEANINGS = {"113001": "Rejected for Quality Reasons", "113037": "Rejected for Patient Safety Reasons",
            "113038": "Incorrect Modality Worklist Entry", "113039": "Data Retention Policy Expired"}


def arguments():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=Path)
    p.add_argument("kind", choices=["image", "note"])
    p.add_argument("--study", required=True)
    p.add_argument("--numbers", default="1")
    p.add_argument("--number", default="1")
    p.add_argument("--patient", default="ORACLE")
    p.add_argument("--name", default="")
    p.add_argument("--birth", default="")
    p.add_argument("--modality", default="CT")
    p.add_argument("--code", default="113037", choices=MEANINGS)
    p.add_argument("--rejects", default="")
    return p.parse_args()


def code(value, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def base(args, sop_class, sop):
    d = Dataset()
    d.SpecificCharacterSet = "ISO_IR 192"
    d.SOPClassUID, d.SOPInstanceUID = sop_class, sop
    d.StudyInstanceUID = args.study
    d.PatientID, d.PatientName, d.PatientBirthDate = args.patient, args.name, args.birth
    d.PatientSex, d.StudyDate, d.StudyTime, d.AccessionNumber = "", "20261122", "101500", ""
    return d


def write(d, path):
    d.file_meta = FileMetaDataset()
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.save_as(path, enforce_file_format=True)


def image(args, number):
    d = base(args, CT, f"{args.study}.1.{number}")
    d.Modality, d.SeriesInstanceUID, d.InstanceNumber = args.modality, f"{args.study}.1", number
    d.Rows, d.Columns, d.BitsAllocated, d.BitsStored, d.HighBit = 8, 8, 16, 16, 15
    d.SamplesPerPixel, d.PixelRepresentation = 1, 0
    d.PhotometricInterpretation = "MONOCHROME2"
    d.PixelData = bytes([number % 251]) * 128
    write(d, args.out / f"{number}.dcm")


def note(args):
    d = base(args, KOS, f"{args.study}.9.{args.number}")
    d.Modality, d.SeriesInstanceUID, d.InstanceNumber = "KO", f"{args.study}.9", args.number
    d.ValueType, d.ContinuityOfContent = "CONTAINER", "SEPARATE"
    d.ConceptNameCodeSequence = [code(args.code, MEANINGS[args.code])]
    d.ContentDate, d.ContentTime = "20261122", "110000"
    references, content = [], []
    for number in args.rejects.split(","):
        ref = Dataset()
        ref.ReferencedSOPClassUID, ref.ReferencedSOPInstanceUID = CT, f"{args.study}.1.{number}"
        references.append(ref)
        item = Dataset()
        item.RelationshipType, item.ValueType = "CONTAINS", "IMAGE"
        item.ReferencedSOPSequence = [ref]
        content.append(item)
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = f"{args.study}.1", references
    evidence = Dataset()
    evidence.StudyInstanceUID, evidence.ReferencedSeriesSequence = args.study, [series]
    d.CurrentRequestedProcedureEvidenceSequence = [evidence]
    d.ContentSequence = content
    write(d, args.out / f"note{args.number}.dcm")


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.kind == "note":
        note(args)
    else:
        for number in args.numbers.split(","):
            image(args, int(number))


if __name__ == "__main__":
    main()
