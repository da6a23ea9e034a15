"""The document of errors, made from the data in the repository."""

from __future__ import annotations

from pathlib import Path

from bench.accuracy import fit_runs, measure
from bench.accuracy.errors import HEAD, Errors

TARGET = fit_runs.ROOT / "docs/accuracy.md"
COMMAND = "python -m bench.accuracy"

INTRODUCTION = f"""# How accurate the estimates are

Made by `{COMMAND}` (or `make accuracy`) from the data in `bench/accuracy/data`; a test
compares this page with what the command prints. Every error is of rows that the fit in question
has not seen: it is made anew without them. Nothing measured is looked up when an estimate is made;
the shipped coefficients (`src/dusuan/facts/*_model.json`) are fitted on all rows, with their data,
command and date in the same file.

An error is |estimate / truth - 1|. The interval is the one that `estimate` prints as P10 to P90.
"""

READING = """
## What to make of it

- **Training steps.** Fitted on one code base (llm-foundry, fully sharded data parallel) and three
  kinds of device; on others the terms carry over, the error is not known. The structure of the
  model was chosen with all rows in sight; its coefficients never saw the rows they are judged on.
- **Device-hours.** Twenty-eight public runs of fifteen families. Sizes of a few hundred million
  parameters on H100, and runs that were exceptionally well or badly tuned (Pleias, OpenELM), are
  what the interval is wide for. Features and priors were settled with these errors in sight, so
  expect somewhat more on new runs. The outside runs are in no fit; they were looked at once, and
  the prior for fast devices was revised after that. The largest errors there are Llama 3.2, whose
  hours hold work beside the tokens (logits of larger models), and Llama 3.1 8B.
- **Serving.** The fifth that was set aside was looked at once, after the model was finished, and
  nothing was changed after it. Its tail is an old engine version that was measured without other
  requests' prefill in between, and a speculative one; neither is told apart by the columns. TTFT
  under load is mostly queueing, of which the rows say little: take it as an order of magnitude.
  Disaggregated rows without a load span 3 to 70 ms for one and the same configuration; an estimate
  assumes one request for each device and says so.
- **Energy.** Measured runs are few. Most published energies are rated power times hours, without
  the node: against those the estimate is a third higher, and meant to be.

## Beside what others publish

| estimator | what | error |
|---|---|---|
| Calculon | step time, 8 configurations, all knobs given | 3.7 % mean, 8.9 % at most |
| AIConfigurator 0.12 | serving throughput, 239 measured rows | 18.4 % median, p90 50 % |
| median utilisation of a device | device-hours, one family left out | 20.6 % median, p90 62 % |
| ridge on size, mixture, hardware | device-hours, one family left out | 18.3 % median, p90 61 % |
| median utilisation of a device | training step, one size left out | 7.5 % median |
| small regression | training step, one size left out | 4.8 % median |
| node model, idle + slope | energy (arXiv 2506.14551) | 11.4 % |
| rated power | energy (arXiv 2506.14551) | 27 to 37 % |
"""


def document(lines: list[Errors]) -> str:
    """The page."""
    table = "\n".join([HEAD, *(line.line() for line in lines)])
    return f"{INTRODUCTION}\n{table}\n{READING}"


def main() -> None:
    """Measure and write the page."""
    text = document(measure.everything())
    Path(TARGET).write_text(text, "utf-8")
    print(text)
