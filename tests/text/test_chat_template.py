"""Chat formats found in templates: they write what the template writes, or are refused."""

from __future__ import annotations

import pytest

from groundup.config import UserError
from groundup.text.chat import CHAT_TEMPLATE, render
from groundup.text.chat_format import OURS, with_chat
from groundup.text.chat_template import derive_format, write
from groundup.text.tokenizer import from_vocabulary

CHATML = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] \
+ '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
TURNS = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('none') }}{% endif %}\
{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else \
message['role'] %}{{ '<turn>' + role + '\n' + message['content'] | trim + '<end>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"""
SPECIAL = {"<|im_start|>": 1, "<|im_end|>": 2, "<bos>": 3, "<turn>": 4, "<end>": 5}


def test_a_format_with_roles_as_text():
    chat = derive_format(CHATML, SPECIAL, {"bos_token": "<|im_start|>"})
    assert chat.no_system == "<|im_start|>system\nBe kind.<|im_end|>\n"
    assert chat.turn("user").before == "<|im_start|>user\n"
    assert chat.turn("assistant").after == "<|im_end|>\n"
    assert (chat.end, chat.opening, chat.strip) == ("<|im_end|>", "", False)
    told = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert write(chat, told, reply=True) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    )


def test_other_role_names_stripped_contents_and_no_system():
    chat = derive_format(TURNS, SPECIAL, {"bos_token": "<bos>"})
    assert chat.opening == "<bos>" and chat.strip
    assert chat.turn("assistant").before == "<turn>model\n"
    with pytest.raises(UserError, match="no role 'system'"):
        chat.turn("system")


def test_our_own_template_gives_our_own_format():
    special = {"<|bos|>": 0, "<|end|>": 1, "<|system|>": 2, "<|user|>": 3, "<|assistant|>": 4}
    chat = derive_format(CHAT_TEMPLATE, special, {"bos_token": "<|bos|>"})
    assert (chat.opening, chat.reply, chat.end) == (OURS.opening, OURS.reply, OURS.end)
    assert all(turn in OURS.turns for turn in chat.turns)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[-1]['content'] }}", "does not write each content once"),
        ("{{ raise_exception('no') }}", "refuses a plain conversation"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses a plain conversation"),
        ("{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}", "reply|special"),
        ("x" * 200_000, "200,000 characters"),
        (CHATML.replace("message['content']", "message['content']|upper"), "each content once"),
        (CHATML.replace("+ '\n'}}", "+ '\n' + loop.index|string }}"), "does more"),
        ("{% if", "refuses"),
    ],
)
def test_what_is_not_a_frame_around_contents_is_refused(template, message):
    with pytest.raises(UserError, match=message):
        derive_format(template, SPECIAL, {"bos_token": "<bos>"})


@pytest.fixture
def foreign(tiny_tokenizer):
    """The tiny vocabulary with somebody else's special tokens."""
    import dataclasses

    theirs = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<a>", "<b>", "<c>", "<d>")
    ids = tiny_tokenizer.special.values()
    special = dict(zip(theirs, ids, strict=True))
    vocabulary = dataclasses.replace(tiny_tokenizer.vocabulary, special=special)
    chat = derive_format(CHATML, special, {"bos_token": "<|im_start|>"})
    return from_vocabulary(with_chat(vocabulary, chat, "<|endoftext|>"))


def test_render_trains_on_replies_alone_and_text_stays_text(foreign):
    messages = [
        {"role": "user", "content": "Hi <|im_end|>"},
        {"role": "assistant", "content": "Hello."},
    ]
    rendered = render(foreign, messages)
    trained = [id for id, on in zip(rendered.ids, rendered.mask, strict=True) if on]
    assert trained == [*foreign.encode("Hello."), foreign.special["<|im_end|>"]]
    assert rendered.ids.count(foreign.special["<|im_end|>"]) == 3  # the default system's, and two
    assert foreign.special["<|end|>"] == foreign.special["<|im_end|>"]
    assert rendered.ids[rendered.starts[1]] == foreign.special["<|im_start|>"]


def test_a_foreign_format_survives_saving(foreign, tmp_path):
    import transformers

    from groundup.text.tokenizer import load_tokenizer

    foreign.save(tmp_path)
    back = load_tokenizer(tmp_path)
    assert back.vocabulary == foreign.vocabulary
    assert back.fingerprint == foreign.fingerprint
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "So?"}]
    for reply in (False, True):
        ids = theirs.apply_chat_template(messages, add_generation_prompt=reply, return_dict=True)[
            "input_ids"
        ]
        assert ids == render(foreign, messages, reply).ids


def test_foreign_conversations_are_packed(foreign, tmp_path):
    from groundup.data.conversations import PackedConversations, write_conversations
    from groundup.data.documents import Document

    messages = ({"role": "user", "content": "a b"}, {"role": "assistant", "content": "c d"})
    documents = [Document("s", str(i), messages=messages * (i + 1)) for i in range(3)]
    manifest = write_conversations(tmp_path / "c", documents, foreign, 64)
    packed = PackedConversations(tmp_path / "c", foreign.fingerprint)
    replies = len(foreign.encode("c d")) + 1
    assert manifest.num_targets == 6 * replies
    assert (packed.inputs[:, 0] == foreign.special["<|bos|>"]).all()
