"""Which learner teaches a family a kind of task."""

from __future__ import annotations

from groundup.pipeline.tasks.continuing import Continuer, Masker, SpanFiller
from groundup.pipeline.tasks.learner import Learner, Lesson
from groundup.pipeline.tasks.pictures import Captioner, Classifier
from groundup.pipeline.tasks.texts import Labeller, Translator, Writer


def make_learner(lesson: Lesson) -> Learner:
    """The learner for the lesson's family and kind of task."""
    family, continues = lesson.family, lesson.task.kind == "continue"
    if family in ("mlp", "vit"):
        return Classifier(lesson)
    if family == "vlm":
        return Captioner(lesson)
    if family == "encoder":
        return Masker(lesson) if continues else Labeller(lesson)
    if family == "encoder-decoder":
        return SpanFiller(lesson) if continues else Translator(lesson)
    return Continuer(lesson) if continues else Writer(lesson)
