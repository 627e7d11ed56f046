"""Writes test/fixtures/tokenizers/pre-tokenizers.json: for each way of splitting text that published mixtures of
experts use, a small BPE that Hugging Face's tokenizers library trained with the published expressions, and the ids that it
gives for texts of many scripts. Read by test/unit/model/pre-tokenizers.test.ts.

Usage: python scripts/goldens/pre_tokenizer_fixtures.py   (needs tokenizers)
"""

import json

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizer_fixtures import CORPUS, write

# As the tokenizer.json of the model named, or the expressions of its tiktoken file, has them.
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
FIRST = r"[^\r\n\p{L}\p{N}]?"
O200K = (
    rf"{FIRST}[{UPPER}]*[{LOWER}]+{ENDINGS}?|{FIRST}[{UPPER}]+[{LOWER}]*{ENDINGS}?|"
    rf"\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}"
)
KIMI = (
    rf"[\p{{Han}}]+|{FIRST}[{UPPER}&&[^\p{{Han}}]]*[{LOWER}&&[^\p{{Han}}]]+{ENDINGS}?|"
    rf"{FIRST}[{UPPER}&&[^\p{{Han}}]]+[{LOWER}&&[^\p{{Han}}]]*{ENDINGS}?|"
    rf"\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}"
)
SPLITS = {
    "deepseek-v3": [
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"""
        + SPACES,
    ],
    "glm4": [
        rf"{ENDINGS}|{FIRST}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}",
    ],
    "gpt-4o": [O200K],
    "kimi-k2": [KIMI],
    "qwen2": [rf"{ENDINGS}|{FIRST}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}"],
}
MORE = [
    "人工智能模型的推理引擎在本地运行,人工智能模型2024年发布。日本語のテキストとカタカナ、ひらがな。",
    "한국어 문장입니다. العربية نص عربي ١٢٣. हिन्दी में पाठ १२३ है। ภาษาไทย Ελληνικά Кириллица иврит עברית",
    "camelCaseWords HTTPServer iPhone McDonald's DON'T we'LL it's they'Re x/y//z path/to/file.txt",
] * 6
TEXTS = [
    "",
    "Once upon a time, they'Re DON'T we'LL it's",
    "camelCaseWords HTTPServer iPhone15Pro McDonald's",
    "1 12 123 1234 12345678901 3.14159 $1,000,000.50 €20 ½ ²³ Ⅻ",
    "人工智能模型2024年发布, GPT的推理engine本地run。",
    "日本語のテキストとカタカナ・ひらがなー混在 「引用」 々〆ヶ",
    "한국어 문장입니다. 안녕하세요!",
    "العربية نص عربي ١٢٣٤٥ — עברית",
    "हिन्दी में पाठ १२३४ है। ภาษาไทย ๑๒๓",
    "Ελληνικά ΚΕΦΑΛΑΊΑ Кириллица ПРОПИСНЫЕ ǅabc ĲSSEL ﬁn",
    "e\u0301a\u0308 combining \u0301\u0301 marks a\u200db zwj",
    "x = foo/bar//baz;\n\n\treturn  y;  \r\n   // end\n \n  ",
    "   leading, trailing   \n\n\n\u00a0nbsp\u3000wide\u2028line",
    "🙂👍🏽 👨‍👩‍👧‍👦 🇩🇪 ~~~ *** --- ### <|x|> {a:[b]}",
    "f(x)=ax²+bx+c; #include <stdio.h> @user _name_ `code` \\path",
]


def trained(patterns):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS + MORE + TEXTS * 2, trainer)
    return tokenizer


def main():
    result = {}
    for name, patterns in SPLITS.items():
        tokenizer = trained(patterns)
        cases = [{"text": text, "ids": tokenizer.encode(text).ids} for text in TEXTS]
        result[name] = {"tokenizer": json.loads(tokenizer.to_str()), "cases": cases}
    write("pre-tokenizers.json", result)


if __name__ == "__main__":
    main()
