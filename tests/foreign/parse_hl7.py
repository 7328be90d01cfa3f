"""Reads one HL7 message by python-hl7 and says, as JSON, what stands in its fields."""

import json
import sys

import hl7

ENCODINGS = {"": "ascii", "UNICODE UTF-8": "utf-8", "~ISO IR87": "iso2022_jp"}

data = open(sys.argv[1], "rb").read()
declared = data.split(b"\r")[0].split(b"|")[17].decode("ascii")
message = hl7.parse(data.decode(ENCODINGS[declared]))
observations = [segment for segment in message if str(segment[0]) == "OBX"]
print(
    json.dumps(
        {
            "kind": str(message.segment("MSH")[9]),
            "control_id": str(message.segment("MSH")[10]),
            "patient": str(message.segment("PID")[3]),
            "names": str(message.segment("PID")[5]),
            "placer": str(message.segment("OBR")[2]),
            "accession": str(message.segment("OBR")[18]),
            "status": str(message.segment("OBR")[25]),
            "reader": str(message.segment("OBR")[32]),
            "text": [message.unescape(str(o[5])) for o in observations if str(o[2]) == "TX"],
            "documents": [str(o[5]).split("^")[4] for o in observations if str(o[2]) == "ED"],
        }
    )
)
