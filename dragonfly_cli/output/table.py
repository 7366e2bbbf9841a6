"""Answers as CSV: one row per image and question, in a fixed column order that scripts depend on."""

import csv
import io
import json
import re
from typing import Any

from dragonfly_cli.output.files import storable

COLUMNS = (
    "image",
    "question",
    "answer",
    "p_yes",
    "p_no",
    "status",
    "error_code",
    "error",
    "model",
    "quantization",
    "device",
    "fields",
    "evidence",
    "seconds",
    "probabilities",
    "option_mass",
    "abstained",
    "calibrated_yes",
    "control_distance",
    "row_options",
)

SIX_DECIMALS = ("p_yes", "p_no", "option_mass", "calibrated_yes", "control_distance")
WHOLE_NUMBERS = ("error_code", "fields")

_DELIMITERS = ",;\t"  # spreadsheets write semicolons where a comma stands in numbers

csv.field_size_limit(2**31 - 1)  # else what we write can't be read again: the boxes of a large volume fill 200 KB

# A spreadsheet takes a cell that begins with one of = + - @ tab for a formula. A cell that looks guarded already gets
# another quote, so that every cell can be read back as it was.
_LOOKS_LIKE_A_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def answer_row(record: dict[str, Any]) -> dict[str, str]:
    """The row of an answer that was given; ``record`` is that of ``output.record``."""
    probabilities = record["probabilities"] or {}
    calibrated, control, model = record["calibrated"] or {}, record["control"] or {}, record["model"]
    return {
        "image": record["image"],
        "question": record["question"] or "",
        "answer": record["answer"],
        "p_yes": _number(probabilities.get("yes")),
        "p_no": _number(probabilities.get("no")),
        "status": "ok",
        "error_code": "",
        "error": "",
        "model": model["id"],
        "quantization": model["quantization"],
        "device": model["device"],
        "fields": str(len(record["fields"])),
        "evidence": _evidence(record["fields"]),
        "seconds": f"{sum(record['timing'].values()):.3f}",
        "probabilities": _options(record),
        "option_mass": _number(record["option_mass"]),
        "abstained": "yes" if record["abstained"] else "no",
        "calibrated_yes": _number(calibrated.get("yes")),
        "control_distance": _number(control.get("distance")),
        "row_options": record.get("row_options", ""),
    }


def failure_row(image: str, question: str | None, error_code: int, error: str, row_options: str = "") -> dict[str, str]:
    """The row of an image or question that could not be answered."""
    row = dict.fromkeys(COLUMNS, "")
    return row | {
        "image": image,
        "question": question or "",
        "status": "failed",
        "error_code": str(error_code),
        "error": error,
        "row_options": row_options,
    }


def as_csv(rows: list[dict[str, str]], *, header: bool) -> str:
    """RFC 4180 text, with every cell guarded against being run as a formula."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    if header:
        writer.writeheader()
    writer.writerows({name: _guarded(storable(cell)) for name, cell in row.items()} for row in rows)
    return text.getvalue()


def delimiter_of(header: str) -> str:
    """What stands between the cells of a table that other programs may have written."""
    return max(_DELIMITERS, key=header.count)


def column_name(written: str) -> str:
    """What a column is called that somebody has named by hand, as ``Slide-MPP`` is ``slide_mpp``."""
    return written.strip().lower().replace("-", "_")


def unguarded(cell: str) -> str:
    """The cell as it was before ``as_csv`` guarded it."""
    return cell[1:] if cell.startswith("'") and _LOOKS_LIKE_A_FORMULA.match(cell) else cell


def _guarded(cell: str) -> str:
    return f"'{cell}" if _LOOKS_LIKE_A_FORMULA.match(cell) else cell


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _options(record: dict[str, Any]) -> str:
    """JSON of what yes and no have columns for, if the answer was chosen from options that were given."""
    probabilities = record["probabilities"]
    if not probabilities or record["settings"]["type"] == "yesno":
        return ""
    return json.dumps({option: round(p, 6) for option, p in probabilities.items()}, ensure_ascii=False)


def _evidence(fields: list[dict[str, Any]]) -> str:
    """Level-0 boxes that the model zoomed in on: ``frame:x,y,width,height`` joined by spaces."""
    return " ".join(
        f"{field['frame']}:{box['x']},{box['y']},{box['width']},{box['height']}"
        for field in fields
        for box in field["selected"]
    )
