#!/usr/bin/env python3
"""Images with another patient or accession number than their order, and what became of them, by
pydicom, not by us.

make DIR < JSON     writes one Part 10 file for each object of a list of
                    {"file", "study", "sop", "charset", "name", "id", "accession", "syntax",
                     "pixels", "earlier"}
read < JSON         prints one JSON object for each [FILE, SYNTAX] of a list, a data set without
                    file meta information
"""
import hashlib
import json
import sys
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import UID

CT = "1.2.840.10008.5.1.4.1.1.2"
TEXT = ["AccessionNumber", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate",
        "PatientSex", "InstanceCoercionDateTime"]


def image(one):
    ds = Dataset()
    if one.get("charset") is not None:
        ds.SpecificCharacterSet = one["charset"]
    ds.SOPClassUID, ds.SOPInstanceUID = CT, one["sop"]
    ds.AccessionNumber, ds.Modality = one.get("accession", ""), "CT"
    ds.PatientName, ds.PatientID = one.get("name", ""), one["id"]
    ds.PatientSex = "F"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = one["study"], one["study"] + ".1"
    step = Dataset()
    step.AccessionNumber, step.RequestedProcedureID = "INNER", "RP1"
    ds.RequestAttributesSequence = Sequence([step])
    ds["RequestAttributesSequence"].is_undefined_length = True
    block = ds.private_block(0x0009, "SOME MAKER", create=True)
    block.add_new(0x01, "LO", "private")
    block.add_new(0x02, "OB", bytes(range(64)))
    if one.get("earlier"):
        item, former = Dataset(), Dataset()
        former.PatientID = "EARLIER"
        item.ModifiedAttributesSequence = Sequence([former])
        item.AttributeModificationDateTime = "20200101120000"
        item.ModifyingSystem, item.SourceOfPreviousValues = "an archive", ""
        item.ReasonForTheAttributeModification = "COERCE"
        ds.OriginalAttributesSequence = Sequence([item])
        ds["OriginalAttributesSequence"].is_undefined_length = one["earlier"] == "undefined"
    length = one.get("pixels", 512)
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = length // 512, 256, 16, 16, 15
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    seed = hashlib.sha256(one["sop"].encode()).digest()
    ds.PixelData = (seed * (length // len(seed) + 1))[:length]
    ds["PixelData"].VR = "OW"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CT, one["sop"]
    meta.TransferSyntaxUID = UID(one.get("syntax", "1.2.840.10008.1.2.1"))
    meta.ImplementationClassUID = "2.25.3117.0"
    ds.file_meta, ds.preamble = meta, bytes(128)
    return ds


def text(ds, keyword):
    """pydicom splits names at = and ^ before it decodes them, and 表 has the byte of =."""
    value = ds[keyword].value
    raw = getattr(value, "original_string", None)
    if isinstance(raw, bytes) and b"\x1b" in raw:
        return raw.decode("iso2022_jp").rstrip(" ")
    return str(value)


def shown(ds):
    out = {k: text(ds, k) for k in TEXT if k in ds}
    out["pixels"] = hashlib.sha256(ds.PixelData).hexdigest() if "PixelData" in ds else None
    out["private"] = str(ds[0x0009, 0x1001].value) if (0x0009, 0x1001) in ds else None
    request = ds.get("RequestAttributesSequence")
    out["inner"] = str(request[0].AccessionNumber) if request else None
    out["original"] = [
        {"system": str(i.ModifyingSystem), "source": str(i.SourceOfPreviousValues),
         "at": str(i.AttributeModificationDateTime),
         "reason": str(i.ReasonForTheAttributeModification),
         "former": shown_former(i.ModifiedAttributesSequence[0])}
        for i in ds.get("OriginalAttributesSequence", [])]
    return out


def shown_former(ds):
    return {e.keyword: text(ds, e.keyword) for e in ds}


def main():
    if sys.argv[1] == "make":
        folder = Path(sys.argv[2])
        folder.mkdir(exist_ok=True)
        for one in json.load(sys.stdin):
            dcmwrite(folder / one["file"], image(one), enforce_file_format=True)
        return
    for file, syntax in json.load(sys.stdin):
        syntax = UID(syntax)
        with open(file, "rb") as f:
            ds = read_dataset(f, syntax.is_implicit_VR, syntax.is_little_endian)
            print(json.dumps(shown(ds)))


if __name__ == "__main__":
    main()
