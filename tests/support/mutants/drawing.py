"""Small changes of C++ sources: where they can be made, and which are drawn.

A source is looked at line by line, without its comments and strings; .clang-format's spaces tell a comparison from a template.
"""
import collections
import os
import re

# What CUDA's compiler alone sees is tested by tests/gpu/run, and the build of a campaign has no CUDA.
FOLDERS = ("runtime", "comm", "io", "launch/train")
LEFT_OUT = ("runtime/cuda/",)

Mutant = collections.namedtuple("Mutant", "kind file line old new")  # line: counted from 1; old and new: whole lines

OPPOSITES = {"<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "==", "&&": "||", "||": "&&"}
NEIGHBOURS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
NUMBER = re.compile(r"(?<![\w.])(?:(\d+)|(\d+\.\d+)f?)(?![\w.'])")
CALL = re.compile(r"^\s+(?!return\b|throw\b|delete\b|if\b|for\b|while\b|switch\b|else\b|static_assert\b)[\w.:\[\]>-]+\(.*\);$")
ASSIGNMENT = re.compile(r"^\s+[\w.\[\]>-]+ [-+*/|&^%]?= .*;$")
ARGUMENTS = re.compile(r"(?<=\()([\w.]+), ([\w.]+)(?=\))")
BEGINS_A_STATEMENT = re.compile(r"(^|[;{}:])\s*$")


def code_of(text):
    """Its lines, with blanks in place of comments and of what strings and characters hold."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group())
    text = re.sub(r'R"\((?:.|\n)*?\)"|"(?:\\.|[^"\\\n])*"|(?<!\w)\'(?:\\.|[^\'\\\n])+\'|//[^\n]*|/\*(?:.|\n)*?\*/', blank, text)
    return text.split("\n")


def changes_of(code, before, header):
    """(kind, begin, end, replacement) of what can be changed in a line of code; `before`: the line above, as code."""
    for match in re.finditer(r" (<=|>=|<|>|==|!=|&&|\|\|) ", code):
        begin, end, sign = match.start(1), match.end(1), match.group(1)
        yield "comparison", begin, end, OPPOSITES[sign]
        if sign in NEIGHBOURS:
            yield "bound", begin, end, NEIGHBOURS[sign]
    for match in re.finditer(r" [+-] 1(?![\w.'])", code):
        yield "bound", match.start(), match.end(), ""
    if not code.lstrip().startswith(("#", "case ", "template", "static_assert")):
        for match in NUMBER.finditer(code):
            whole, fraction = match.group(1), match.group(2)
            yield "constant", *match.span(), str(int(whole) + 1) if whole else match.group().replace(fraction, str(2 * float(fraction) or 1.0))
    if not header and (CALL.match(code) or ASSIGNMENT.match(code)) and code.count("(") == code.count(")") and \
            BEGINS_A_STATEMENT.search(before):
        indent = len(code) - len(code.lstrip())
        yield "statement", indent, len(code), ";"
    for match in ARGUMENTS.finditer(code):
        if match.group(1) != match.group(2):
            yield "arguments", *match.span(), f"{match.group(2)}, {match.group(1)}"


def mutants_of(root, file):
    with open(os.path.join(root, file), encoding="utf-8") as source:
        text = source.read()
    lines, code = text.split("\n"), code_of(text)
    for number, (line, clean) in enumerate(zip(lines, code)):
        for kind, begin, end, new in changes_of(clean.rstrip(), code[number - 1] if number else "", file.endswith(".hpp")):
            yield Mutant(kind, file, number + 1, line, line[:begin] + new + line[end:])


def sources(root, folders=FOLDERS):
    for folder in folders:
        for place, _, names in os.walk(os.path.join(root, folder)):
            for name in names:
                file = os.path.relpath(os.path.join(place, name), root)
                if name.endswith((".cpp", ".hpp")) and not file.startswith(LEFT_OUT):
                    yield file


def draw(root, pick, folders=FOLDERS):
    """Mutants without end: each kind as often as the others, within a kind each place."""
    by_kind = collections.defaultdict(list)
    for file in sorted(sources(root, folders)):
        for mutant in mutants_of(root, file):
            by_kind[mutant.kind].append(mutant)
    kinds = sorted(by_kind)
    while True:
        yield pick.choice(by_kind[pick.choice(kinds)])
