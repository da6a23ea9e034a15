"""What every fit does with its document: write it where the package has it, or show it."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run(what: str, data: Path, target: Path, document: Callable[[Path, str], Any]) -> None:
    """Fit, and write or show the document. `document` takes the data's path and today's date."""
    parser = argparse.ArgumentParser(description=f"Fit the {what}.")
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    made = document(args.data, datetime.datetime.now(datetime.UTC).date().isoformat())
    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    if args.dry_run:
        print(text)
    else:
        target.write_text(text, "utf-8")
