"""Stage 7: every figure of the run in report.json, and a page to read in report.html."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundup.pipeline.stage import Stage, all_stages, stage_record

if TYPE_CHECKING:
    from groundup.pipeline.run import Run


@dataclass(frozen=True, kw_only=True)
class ReportSection:
    """The report has no settings yet."""


def work(run: Run, section: ReportSection) -> dict[str, Any]:
    from groundup.config import to_dict
    from groundup.files import read_json, write_json
    from groundup.pipeline.report import write_report

    if not run.world.is_main:
        return {}
    records = {
        stage.name: stage_record(run, stage.name) for stage in all_stages() if stage is not STAGE
    }
    results = {name: record["results"] for name, record in records.items()}
    evaluation = results["evaluate"]
    stages = []
    for name, record in records.items():
        figures = {
            key: value
            for key, value in record["results"].items()
            if isinstance(value, int | float) or key == "split"
        }
        stages.append({"name": name, "seconds": record["seconds"], **figures})
    # Not run.write_json, where all processes meet: the others have left already.
    write_json(
        run.folder / "report.json",
        {
            "name": run.config.name,
            "created": time.strftime("%Y-%m-%d %H:%M"),
            "machine": run.machine,
            "val_bpb": evaluation.get("val_bpb"),
            "wall_seconds": round(sum(record["seconds"] for record in records.values()), 1),
            "model": {
                "parameters": results["pretrain"]["parameters"],
                **read_json(run.folder / "base" / "groundup.json")["model"],
            },
            "data": results["data"],
            "tokenizer": {**results["tokenizer"], **results["shards"]},
            "stages": stages,
            "evaluation": {k: v for k, v in evaluation.items() if k not in ("chats", "texts")},
            "samples": [{"step": "final", "text": text} for text in evaluation["texts"]],
            "chats": evaluation["chats"],
            "config": to_dict(run.config),
        },
    )
    write_report(run.folder)
    return {}


STAGE = Stage(
    name="report",
    after="evaluate",
    title="Write the report",
    section=ReportSection,
    work=work,
    every_time=True,
)
