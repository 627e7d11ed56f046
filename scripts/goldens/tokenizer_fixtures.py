"""Writes test/fixtures/tokenizers/: three small tokenizers in Hugging Face's tokenizer.json form, and texts with the
ids and decoded texts that Hugging Face's own tokenizers library gives for them; chat templates with the prompts
that transformers renders. Read by test/unit/model/tokenizer.test.ts and by the GGUF fixtures.

Usage: python scripts/goldens/tokenizer_fixtures.py   (needs tokenizers and transformers)
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

OUT = Path(__file__).parents[2] / "test" / "fixtures" / "tokenizers"

CORPUS = [
    "Once upon a time there was a small fox who lived near the river. The fox's den wasn't far from the mill.",
    "The quick brown fox jumps over the lazy dog, and 12345 more jump over 678 others; it's 9:30 already!",
    'function add(a, b) { return a + b; } // sums two numbers\n\tconst x = [1, 2, 3];\n\n{"key": "value", "n": 10}',
    "Übergrößenträger naïve café résumé — œuvre. Привет, мир! 你好,世界。 こんにちは 안녕하세요 🙂👍🏽",
    "   leading and    inner   spaces \n\n\n and lines\r\n with\ttabs   ",
] * 4

TEXTS = [
    "",
    " ",
    "Once upon a time",
    " the fox's den wasn't far; I'LL SEE you'Re",
    "12345 and 3.14159 or 1000000",
    "a  b   c\n\n d\t\te \r\n f ",
    "naïve café — 你好,世界 🙂👍🏽 Привет",
    "family: 👨‍👩‍👧‍👦 flag: 🇩🇪 tone: 👍🏽",
    "<|user|>Hello<|end|>\n<|assistant|> Hi there <tool>x</tool>",
    "control \x00\x01\x7f and \ufffd and \ufeff",
    "const f = (x) => { return x ** 2; };",
    "ＦＵＬＬ ½ ﬁ Å e\u0301",
]

SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>"]

QWEN2_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def add_tokens(tokenizer):
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])


def byte_level():
    """As Qwen's: NFC, a split by regex, bytes as characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    add_tokens(tokenizer)
    return tokenizer


def byte_fallback():
    """As Llama 2's: U+2581 for spaces, bytes as <0x..> where a character is unknown, <s> in front."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    trained.train_from_iterator(CORPUS[:4], trainers.BpeTrainer(vocab_size=300, limit_alphabet=70))
    model = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += [token for token in model["vocab"] if token not in tokens]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ["<unk>", "<s>", "</s>"]])
    add_tokens(tokenizer)
    return tokenizer


def unigram():
    """A SentencePiece unigram model behind a Metaspace decoder."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="first")
    trainer = trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", special_tokens=["<unk>", "</s>"])
    tokenizer.train_from_iterator(CORPUS, trainer)
    add_tokens(tokenizer)
    return tokenizer


def cases(tokenizer):
    result = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        result.append(
            {
                "text": text,
                "ids": ids,
                "idsWithoutSpecial": tokenizer.encode(text, add_special_tokens=False).ids,
                "decoded": tokenizer.decode(ids, skip_special_tokens=True),
                "decodedWithSpecial": tokenizer.decode(ids, skip_special_tokens=False),
            }
        )
    return result


CHATML = (
    "{%- if tools %}<|user|>tools: {{ tools | tojson }}<|end|>\n{% endif %}"
    "{%- for message in messages %}"
    "{{- '<|' + message.role + '|>' + message.content | trim + '<|end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + (system + '\\n' if loop.first and system else '')"
    " + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
CONVERSATION = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": "Hi, who are you?"},
    {"role": "assistant", "content": "A fox."},
    {"role": "user", "content": " Why?"},
]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": 1}}}}]


def chat_cases():
    wrapped = PreTrainedTokenizerFast(tokenizer_object=byte_fallback(), bos_token="<s>", eos_token="</s>")
    result = []
    for name, template in (("chatml", CHATML), ("llama2", LLAMA2)):
        for tools in (None, TOOLS) if name == "chatml" else (None,):
            for generate in (True, False):
                text = wrapped.apply_chat_template(
                    CONVERSATION, chat_template=template, tools=tools, add_generation_prompt=generate, tokenize=False
                )
                result.append(
                    {
                        "name": name,
                        "template": template,
                        "messages": CONVERSATION,
                        "tools": tools,
                        "addGenerationPrompt": generate,
                        "specialTokens": {"bos_token": "<s>", "eos_token": "</s>"},
                        "text": text,
                    }
                )
    return result


def write(name, value):
    path = OUT / name
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(f"wrote {path.name}: {path.stat().st_size} bytes")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name, make in (("byte-level", byte_level), ("byte-fallback", byte_fallback), ("unigram", unigram)):
        tokenizer = make()
        write(f"{name}.json", {"tokenizer": json.loads(tokenizer.to_str()), "cases": cases(tokenizer)})
    write("chat.json", {"cases": chat_cases()})


if __name__ == "__main__":
    main()
