#!/usr/bin/env python3
"""Makes tests/golden/tokenizers.json: small tokenizers, texts, and the ids and texts that `tokenizers` makes of them.

Usage: make_tokenizer_goldens.py FOLDER > tests/golden/tokenizers.json. FOLDER has GPT-2's encoder.json and vocab.bpe, and
tinyshakespeare.txt. Needs `tokenizers` and `tiktoken` of PyPI, which must agree on GPT-2. Texts that are no letters are
written as numbers, so that no editor changes them.
"""
import json
import os
import random
import sys

import tiktoken
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def texts(plain):
    rng = random.Random(7)
    points = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
    low = points[:0x3100]
    torture = "".join(chr(rng.choice(points)) for _ in range(300))
    torture += "".join(chr(rng.choice(low)) + rng.choice(["", " ", "'s", "'LL", "\n", " \n", "\t", "  ", "12345", "a"]) for _ in range(1200))
    return {
        "english": plain[:3000],
        "contractions": "I'll we'Re 'Ve isn't 'S it'ſ 'veX don'T they'd 'm",
        "blanks": "  a   b \n\n  c\r\n\r\n d\t\te\u3000\u3000f\u00a0\u00a0g \u2028 h   ",
        "numbers": "1 12 123 1234567 ١٢٣٤٥ ½²³ 3.14159 v2.0 Ⅷ",
        "other scripts": "Grüße, ÅNGSTRÖM! Привет, мир. 你好世界 こんにちは 안녕하세요 مرحبا नमस्ते e\u0301e\u0301 İstanbul ΑΣ",
        "signs": "a--b... (c) [d] {e} <f> \"g\" `h` $5 €6 👩‍👩‍👧‍👦 ☃ \ufffd\u0000\u007f\u00ad\u200b x",
        "one letter": "a" * 500,
        "random bytes": bytes(rng.randrange(256) for _ in range(600)).decode("latin-1"),
        "torture": torture,
    }


def byte_level(plain, extra, pre, **options):
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
                                  special_tokens=["<|end_of_text|>"])
    tokenizer.train_from_iterator([plain[:60000], extra], trainer)
    tokenizer.add_tokens(["    "])
    return tokenizer


def word_piece(plain, extra, **options):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=600, limit_alphabet=220, show_progress=False,
                                        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.train_from_iterator([plain[:60000], extra], trainer)
    return tokenizer


def entry(tokenizer, given):
    result = {"definition": json.loads(tokenizer.to_str()), "ids": {}, "decoded": {}}
    tokenizer.encode_special_tokens = True
    for name, text in given.items():
        result["ids"][name] = tokenizer.encode(text, add_special_tokens=False).ids
        if isinstance(tokenizer.model, models.WordPiece):  # of bytes it is the text
            result["decoded"][name] = tokenizer.decode(result["ids"][name], skip_special_tokens=False)
    tokenizer.encode_special_tokens = False
    result["with_special"] = tokenizer.encode(SPECIAL, add_special_tokens=False).ids
    return result


SPECIAL = "a<|end_of_text|>b [CLS] c[SEP]"


def main(folder):
    with open(os.path.join(folder, "tinyshakespeare.txt"), encoding="utf-8") as file:
        plain = file.read()
    given = texts(plain)
    extra = " ".join(given.values())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = lambda pattern: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), inner])
    tokenizers = {
        "gpt2 rule": byte_level(plain, extra, level),
        "llama3 rule": byte_level(plain, extra, split(LLAMA3), ignore_merges=True),
        "qwen2 rule": byte_level(plain, extra, split(LLAMA3.replace("{1,3}", ""))),
        "digits apart": byte_level(plain, extra, pre_tokenizers.Sequence([pre_tokenizers.Digits(True), level])),
        "uncased": word_piece(plain, extra),
        "cased": word_piece(plain, extra, lowercase=False),
        "accents kept": word_piece(plain, extra, strip_accents=False, handle_chinese_chars=False),
    }
    files = os.path.join(folder, "encoder.json"), os.path.join(folder, "vocab.bpe")
    gpt2 = Tokenizer(models.BPE.from_file(*files))
    gpt2.pre_tokenizer = level
    with open(files[0], encoding="utf-8") as file:
        encoder = json.load(file)
    byte_of = {c: b for b, c in zip([*range(33, 127), *range(161, 173), *range(174, 256)],
                                    map(chr, [*range(33, 127), *range(161, 173), *range(174, 256)]))}
    rest = [b for b in range(256) if b not in byte_of.values()]
    byte_of.update({chr(256 + i): b for i, b in enumerate(rest)})
    ranks = {bytes(byte_of[c] for c in token): rank for token, rank in encoder.items() if token != "<|endoftext|>"}
    peer = tiktoken.Encoding("gpt2", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})
    ids = {name: gpt2.encode(text).ids for name, text in {**given, "shakespeare": plain}.items()}
    for name, text in {**given, "shakespeare": plain}.items():
        assert ids[name] == peer.encode_ordinary(text), name
    mixed = 0
    for token in ids["shakespeare"]:
        mixed = (mixed * 31 + token) % 2**64
    whole = {"tokens": len(ids.pop("shakespeare")), "mixed": mixed}
    print(json.dumps({"texts": given, "special": SPECIAL, "gpt2": {"ids": ids, "shakespeare": whole},
                      "tokenizers": {name: entry(t, given) for name, t in tokenizers.items()}}, separators=(",", ":")))


if __name__ == "__main__":
    main(sys.argv[1])
