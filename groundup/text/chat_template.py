"""From a Jinja chat template to a `ChatFormat`: found by rendering it, and proven by rendering it.

Templates are programs written by strangers. They are run when a model is imported, never later, in
Jinja's sandbox and in a process of its own with little memory and time. What stands around each
role's content is read off the answers; then longer conversations are written both ways. A template
that does more than put text around contents gives no format, and the reason.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.config import UserError
from groundup.text.chat_format import ChatFormat, Turn, split_special

SECONDS = 20
MEMORY = 1 << 30
LONGEST = 100_000
_COMMAND = [sys.executable, "-c", "from groundup.text.chat_template import serve; serve()"]
# Contents that no template has in it, and that stripping or splitting would not change.
_USER, _ANSWER, _AGAIN, _SYSTEM = "Qu3sti0n", "Answ3r", "Ag4in", "Syst3m"


def derive_format(
    template: str, special: Mapping[str, int], variables: Mapping[str, str]
) -> ChatFormat:
    """The format a template writes. `variables` are what it may name, such as "bos_token".

    Raises UserError saying why when it cannot be followed.
    """
    if len(template) > LONGEST:
        raise UserError(f"The chat template is {len(template):,} characters long; that is refused.")
    user, answer = _message("user", _USER), _message("assistant", _ANSWER)
    again, system = _message("user", _AGAIN), _message("system", _SYSTEM)
    *plain, told = _render(
        template,
        variables,
        [
            ([user], False),
            ([user, answer, again], False),
            ([user], True),
            ([user, answer], False),
            ([system, user], False),
        ],
    )
    alone, three, asked, answered = [_needed(text) for text in plain]
    head, user_after = _around(alone, _USER)
    if not asked.startswith(alone):
        raise UserError("The chat template rewrites a conversation when a reply is asked for.")
    reply = asked[len(alone) :]
    _, _, rest = three.partition(_USER)
    between, second = _around(rest, _ANSWER)
    assistant_before = _without(between, user_after, "user")
    assistant_after = _around(answered, _ANSWER)[1]
    user_before = _without(second.partition(_AGAIN)[0], assistant_after, "assistant")
    if not head.endswith(user_before):
        raise UserError("The chat template writes the first message unlike the later ones.")
    opening, no_system = head[: len(head) - len(user_before)], ""
    turns = [
        Turn(role="user", before=user_before, after=user_after),
        Turn(role="assistant", before=assistant_before, after=assistant_after),
    ]
    system = _system_turn(told or "", opening, user_before, variables.get("bos_token", ""))
    if system is not None:
        turns.insert(0, system[0])
        # What the opening says when nobody set a system text makes way for the system's turn.
        opening, no_system = system[1], opening[len(system[1]) :]
    ends = [part for part in split_special(assistant_after, special) if isinstance(part, int)]
    if not ends:
        raise UserError("The chat template ends a reply with no special token.")
    names = {id: name for name, id in reversed(list(special.items()))}
    found = ChatFormat(
        opening=opening,
        no_system=no_system,
        turns=tuple(turns),
        reply=reply,
        end=names[ends[0]],
        template=template,
    )
    return _proven(found, template, variables)


def read_template(folder: Path, config: Mapping[str, Any]) -> str:
    """The template of a Hugging Face folder with this tokenizer_config.json; "" for none."""
    beside = folder / "chat_template.jinja"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    template = config.get("chat_template") or ""
    if isinstance(template, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default") or ""
    return template if isinstance(template, str) else ""


def write(chat: ChatFormat, messages: Sequence[Mapping[str, str]], reply: bool = False) -> str:
    """A conversation as the format's text: what the template gives."""
    text = chat.opening
    if not messages or messages[0]["role"] != "system":
        text += chat.no_system
    for message in messages:
        turn = chat.turn(message["role"])
        content = message["content"].strip() if chat.strip else message["content"]
        text += turn.before + content + turn.after
    return text + (chat.reply if reply else "")


def serve() -> None:
    """The child: one request as JSON on stdin, its answers on stdout."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    request = json.load(sys.stdin)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = raise_exception
    answers: list[str | None] = []
    for messages, reply in request["conversations"]:
        try:
            template = environment.from_string(request["template"])
            variables = request["variables"]
            text = template.render(messages=messages, add_generation_prompt=reply, **variables)
        except Exception:  # a template may fail in any way; it then gives no answer
            answers.append(None)
        else:
            answers.append(text if len(text) <= 10 * LONGEST else None)
    json.dump(answers, sys.stdout)


def _system_turn(told: str, opening: str, user_before: str, begin: str) -> tuple[Turn, str] | None:
    """The turn of the system and the opening before it; None where it has no turn of its own, as
    in Gemma's format, which puts its text into the first message of the user."""
    if told.count(_SYSTEM) != 1:
        return None
    before, after = _around(told, _SYSTEM)
    first = begin if before.startswith(begin) and not user_before.startswith(begin) else ""
    after = after.partition(_USER)[0]
    if not (opening.startswith(first) and after.endswith(user_before)):
        return None
    after = after[: len(after) - len(user_before)]
    return Turn(role="system", before=before[len(first) :], after=after), first


def _proven(chat: ChatFormat, template: str, variables: Mapping[str, str]) -> ChatFormat:
    """The format, or the one that strips contents, that writes longer conversations alike."""
    conversations = [
        ([_message(role, f"{role} {i}{pad}") for i, role in enumerate(roles)], reply)
        for pad in ("", "\n two lines ", " ")
        for roles, reply in (
            (("user",), True),
            (("user", "assistant", "user"), True),
            (("user", "assistant", "user", "assistant"), False),
            *(
                [(("system", "user", "assistant", "user"), True)]
                if chat.turns[0].role == "system"
                else []
            ),
        )
    ]
    expected = _render(template, variables, conversations)
    for candidate in (chat, replace(chat, strip=True)):
        found = [write(candidate, messages, reply) for messages, reply in conversations]
        if found == expected:
            return candidate
    raise UserError("The chat template does more than put text around the contents.")


def _render(
    template: str,
    variables: Mapping[str, str],
    conversations: Sequence[tuple[list[dict[str, str]], bool]],
) -> list[str | None]:
    request = {
        "template": template,
        "variables": dict(variables),
        "conversations": conversations,
    }
    try:
        done = subprocess.run(
            _COMMAND, input=json.dumps(request), capture_output=True, text=True, timeout=2 * SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UserError("The chat template takes too long to render.") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it was stopped"])[-1]
        raise UserError(f"The chat template could not be rendered ({last}).")
    return json.loads(done.stdout)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _needed(text: str | None) -> str:
    if text is None:
        raise UserError("The chat template refuses a plain conversation.")
    return text


def _around(text: str, content: str) -> tuple[str, str]:
    before, found, after = text.partition(content)
    if not found or content in after:
        raise UserError("The chat template does not write each content once.")
    return before, after


def _without(text: str, prefix: str, role: str) -> str:
    if not text.startswith(prefix):
        raise UserError(f"The chat template ends the last {role} message unlike earlier ones.")
    return text[len(prefix) :]
