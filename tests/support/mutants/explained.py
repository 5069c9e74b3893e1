"""Changes that no test can or need notice, with the reason: the campaign does not build them."""

# (file, old line, new line): reason. Lines without the blanks around them.
EXPLAINED = {}


def reason(mutant):
    return EXPLAINED.get((mutant.file, mutant.old.strip(), mutant.new.strip()))
