#!/usr/bin/env python3
"""Makes the samples that no public source with a free licence offers, into the given folder:
an Encapsulated PDF, an object of a private SOP class, and one in a private transfer syntax.

The UIDs are fixed, so that running it again gives the same bytes.
Usage: make_samples.py DIR
"""
import sys
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

ROOT = "2.25.3117"  # made up: these objects leave no test machine


def patient(sop_class, number, modality):
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = f"{ROOT}.{number}.1"
    ds.StudyInstanceUID = f"{ROOT}.{number}"
    ds.SeriesInstanceUID = f"{ROOT}.{number}.2"
    ds.PatientName = "Hikyaku^Test=飛脚^試験"
    ds.PatientID = "HIKYAKU-1"
    ds.Modality = modality
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20260101", "120000", f"A{number}"
    return ds


def save(path, ds, syntax, implicit):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = f"{ROOT}.0"
    ds.file_meta, ds.preamble = meta, bytes(128)
    known = {} if syntax.startswith("1.2.840.10008.") else {
        "implicit_vr": implicit, "little_endian": True}
    dcmwrite(path, ds, enforce_file_format=True, **known)


def main(folder):
    pdf = patient("1.2.840.10008.5.1.4.1.1.104.1", 1, "DOC")
    page = b"%PDF-1.1\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n" \
           b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n" \
           b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>endobj\n" \
           b"trailer<</Root 1 0 R>>\n%%EOF\n"
    pdf.MIMETypeOfEncapsulatedDocument = "application/pdf"
    pdf.EncapsulatedDocument = page + b"\0" * (len(page) % 2)
    save(folder / "encapsulated_pdf.dcm", pdf, ExplicitVRLittleEndian, False)

    raw = patient("1.3.12.2.1107.5.9.1", 2, "OT")  # Siemens CSA non-image: private, common
    raw.add_new(0x00290010, "LO", "SIEMENS CSA NON-IMAGE")
    raw.add_new(0x00291010, "OB", bytes(range(256)) * 8)
    save(folder / "private_sop_class.dcm", raw, ExplicitVRLittleEndian, False)

    ge = patient("1.2.840.10008.5.1.4.1.1.7", 3, "OT")
    ge.SamplesPerPixel, ge.PhotometricInterpretation = 1, "MONOCHROME2"
    ge.Rows = ge.Columns = 16
    ge.BitsAllocated = ge.BitsStored = 16
    ge.HighBit, ge.PixelRepresentation = 15, 0
    ge.PixelData = b"".join(n.to_bytes(2, "big") for n in range(256))
    save(folder / "private_transfer_syntax.dcm", ge, "1.2.840.113619.5.2", True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
