"""The command line: each verb parses its arguments and calls the library. No logic lives here.

Verbs import what they need when they are called, so that `groundup --help` answers at once.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from groundup import __version__
from groundup.cli_options import (
    EXAMPLES,
    HELP,
    Chat,
    Classify,
    Compare,
    Data,
    DataShow,
    Doctor,
    Embed,
    Export,
    Generate,
    Inspect,
    Pull,
    Quickstart,
    Score,
    Show,
    Tokens,
    Train,
    View,
    take_option,
)
from groundup.config import UserError, did_you_mean

Arguments = TypeVar("Arguments")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb. A mistake of the user's prints one sentence to stderr and exits with 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("groundup").setLevel(logging.INFO)
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP)
        return
    if words[0] == "--version":
        print(f"groundup {__version__}")
        return
    try:
        verb = VERBS.get(words[0])
        if verb is None:
            hint = did_you_mean(words[0], VERBS)
            raise UserError(f"There is no verb '{words[0]}'.{hint} See groundup --help.")
        verb(words[1:])
    except UserError as error:
        _leave(str(error))
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has had enough
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _leave(f"{error.strerror or error}{where}. What was saved before is intact.")
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        _leave(
            "Out of memory: take a smaller model, a shorter context, or fewer rows at once "
            "(train.micro_rows of a recipe's stage; --rows or --accumulate of `groundup train`). "
            "What was saved before is intact."
        )
    except KeyboardInterrupt:
        sys.exit(130)


def speedrun(words: list[str]) -> None:
    """raw text to a chat model, stage by stage; run it again to continue"""
    from groundup.pipeline.recipe import find_recipe, load_recipe, override, run_config_type
    from groundup.pipeline.run import speedrun as run

    run_folder, words = take_option(words, "--run")
    if not words or words[0].startswith("-"):
        if words and words[0] in ("-h", "--help"):
            print("usage: groundup speedrun RECIPE [--run DIR] [--section.key VALUE ...]")
            print(f"Example: groundup speedrun {EXAMPLES['speedrun']}\n")
            override(run_config_type()(), words)
        raise UserError("Name a recipe, such as: groundup speedrun recipes/demo.toml")
    config = load_recipe(find_recipe(words[0]), words[1:])
    with _continuable():
        run(config, Path(run_folder or Path("runs") / config.name))


def train(words: list[str]) -> None:
    """learn a task: one family of models, or with --all one family of each sort"""
    from groundup.pipeline.tasks import command

    if not words:
        print(command.listing())
        return
    options = _parse(Train, ["", *words] if words[0].startswith("--") else words, "train")
    with _continuable():
        for text in command.run(**vars(options)):
            print(text)


def chat(words: list[str]) -> None:
    """talk to a model in the terminal"""
    asked = _parse(Chat, words, "chat")
    from groundup.infer.config import chat_sampling
    from groundup.infer.load import load_for
    from groundup.models.folder import resolve_model
    from groundup.serve.terminal import chat as run

    defaults = chat_sampling(resolve_model(asked.model))
    asked = _parse(Chat, words, "chat", lambda model: Chat(model=model, sampling=defaults))
    (model, tokenizer, *_), _ = load_for("chat", asked.model)
    run(tokenizer=tokenizer, defaults=defaults, name=asked.model, **vars(asked) | {"model": model})


def generate(words: list[str]) -> None:
    """let a model continue a text, answer one, or write about a picture"""
    options = _parse(Generate, words, "generate")
    from groundup.infer.load import load_for
    from groundup.infer.prompts import request, write
    from groundup.serve.wrap import printable, use_utf8

    sampling = options.settings
    loaded, _ = load_for("generate", options.model, text=True)
    asked = request(loaded, options.prompt, options.image)
    use_utf8(sys.stdout)
    for text in write(asked, sampling, options.samples, options.beams):
        print(printable(text), end="", flush=True)
    print()


def score(words: list[str]) -> None:
    """how well a model predicts a text, as JSON"""
    options = _parse(Score, words, "score")
    if not options.text:
        raise UserError("Name the text to score: groundup score MODEL --text FILE")
    from groundup.eval.bpb import score_text_file
    from groundup.infer.load import load_for

    (model, tokenizer, *_), policy = load_for("score", options.model, text=True)
    result = score_text_file(model, tokenizer, options.text, policy, options.length)
    print(json.dumps(result.as_dict()))


def embed(words: list[str]) -> None:
    """a vector for each line of a text, as JSON; needs an encoder"""
    options = _parse(Embed, words, "embed")
    if not options.text:
        raise UserError("Name the text to embed: groundup embed MODEL --text FILE")
    from groundup.infer.embed import embed_file

    for vector in embed_file(options.model, options.text):
        print(json.dumps(vector))


def classify(words: list[str]) -> None:
    """the class of each line of a text or of a picture, or of each word, as JSON"""
    options = _parse(Classify, words, "classify")
    from groundup.infer.classify import Classifier, verdicts
    from groundup.infer.load import load_for

    loaded, _ = load_for("classify", options.model)
    classifier = Classifier(loaded, options.model)
    for verdict in verdicts(classifier, options.text, options.prompt, options.image):
        print(json.dumps(verdict, ensure_ascii=False))


def inspect(words: list[str]) -> None:
    """the parts of a model, their sizes and costs"""
    options = _parse(Inspect, words, "inspect")
    from groundup.infer.load import load_for
    from groundup.models.summary import table

    loaded, _ = load_for("inspect", options.model)
    print(table(loaded.model))


def view(words: list[str]) -> None:
    """what fine-tuning would learn from a chat, coloured"""
    options = _parse(View, words, "view")
    if not options.messages:
        raise UserError("Name the chat: groundup view MODEL --messages FILE.json")
    from groundup.models.folder import resolve_model
    from groundup.text.chat import colour_view, render
    from groundup.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(resolve_model(options.model))
    try:
        messages = json.loads(Path(options.messages).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{options.messages} is not valid JSON: {error}.") from None
    if isinstance(messages, dict):  # a line of a .jsonl source, or what /save wrote in a chat
        messages = messages.get("messages")
    if not isinstance(messages, list):
        raise UserError(f'{options.messages} should hold a list of {{"role", "content"}} objects.')
    print(colour_view(tokenizer, render(tokenizer, messages)))


def tokens(words: list[str]) -> None:
    """bytes per token, next to the vocabularies of GPT-2 and GPT-4 where they are installed"""
    options = _parse(Tokens, words, "tokens")
    from groundup.data.sources import read_text_file
    from groundup.models.folder import resolve_model
    from groundup.text.evaluate import compare, installed_vocabularies, sample_texts, table
    from groundup.text.tokenizer import load_tokenizer

    own = load_tokenizer(resolve_model(options.model))
    texts = sample_texts()
    if options.text:
        texts[Path(options.text).name] = read_text_file(options.text)
    print(table(compare({"this model": own, **installed_vocabularies()}, texts)))


def data(words: list[str]) -> None:
    """the texts and tasks there are, fetched when they are first used; or examples of a task"""
    from groundup.data import task_show

    if words[:1] == ["show"]:
        options = _parse(DataShow, words[1:], "data")
        print(task_show.show(options.task, options.n))
    else:
        _parse(Data, words, "data")
        print(task_show.overview())


def pull(words: list[str]) -> None:
    """bring in a model made elsewhere; afterwards it needs no network"""
    options = _parse(Pull, words, "pull")
    from groundup.models.pull import pull as run

    folder, notes = run(options.source, options.name)
    print(f"{options.name} is in {folder}.", *notes, sep="\n")


def export(words: list[str]) -> None:
    """write a model for other programs: a Hugging Face folder, or a GGUF file"""
    options = _parse(Export, words, "export")
    from groundup.models.export import export as run

    print(run(options.model, options.to, options.path, options.precision))


def show(words: list[str]) -> None:
    """how something works: a picture, and its numbers as a table"""
    from groundup.inspect.show import show as run
    from groundup.inspect.show import topics

    if not words:
        print(topics())
        return
    options = _parse(Show, words, "show")
    print(run(**vars(options), tell=lambda line: print(f"  {line}", file=sys.stderr)))


def quickstart(words: list[str]) -> None:
    """an encoder, a decoder and an encoder-decoder learn to name numbers"""
    options = _parse(Quickstart, words, "quickstart")
    from groundup.pipeline.quickstart import run

    with _continuable(advice=""):
        for text in run(progress=_show_step, **vars(options)):
            print(text)


def compare(words: list[str]) -> None:
    """three families on the same tasks, with equally many parameters: scores, speed, pictures"""
    options = _parse(Compare, words, "compare")
    from groundup.pipeline.compare.report import run

    with _continuable(advice=""):
        for text in run(progress=_show_step, **vars(options)):
            print(text)


def doctor(words: list[str]) -> None:
    """what this machine can do, detected and measured"""
    options = _parse(Doctor, words, "doctor")
    from rich.console import Console

    from groundup.inspect.doctor import as_json, as_table, diagnose

    found = diagnose()
    if options.json:
        print(as_json(found))
    else:
        Console().print(as_table(found))


VERBS: dict[str, Callable[[list[str]], None]] = {
    verb.__name__: verb
    for verb in (
        *(speedrun, train, chat, generate, score, embed, classify, inspect, view, tokens),
        *(data, pull, export, show, quickstart, compare, doctor),
    )
}


def _parse(cls: type[Arguments], words: list[str], verb: str, default: Any = None) -> Arguments:
    import tyro

    summary, example = VERBS[verb].__doc__ or "", f"groundup {verb} {EXAMPLES[verb]}".rstrip()
    return tyro.cli(
        cls,
        args=words,
        default=default and default(tyro.MISSING),
        prog=f"groundup {verb}",
        description=f"{summary[0].upper()}{summary[1:]}.\n\nExample: {example}",
        config=(
            tyro.conf.PositionalRequiredArgs,
            tyro.conf.PositionalMetavarFromFieldName,
            tyro.conf.OmitArgPrefixes,
        ),
    )


@contextmanager
def _continuable(advice: str = " Run the same command again to continue.") -> Iterator[None]:
    """A training that a signal stops says what it saved, and what to do."""
    from groundup.train.signals import Stopped

    try:
        yield
    except Stopped as stopped:
        print(f"{stopped}{advice}", file=sys.stderr)
        sys.exit(130 if "SIGINT" in str(stopped) else 143)


def _is_out_of_memory(error: Exception) -> bool:
    """torch has a class of its own for GPUs alone; on a CPU its allocator only says so."""
    words = str(error).lower()
    return (
        isinstance(error, MemoryError) or "out of memory" in words or "t allocate memory" in words
    )


def _show_step(who: str, step: int, loss: float) -> None:
    print(f"  {who} {step}: loss {loss:.4f}", file=sys.stderr)


def _leave(message: str) -> None:
    print(f"groundup: {message}", file=sys.stderr)
    sys.exit(2)
