"""Taggers: functions from the words of a document to the class of each.

To use the tagger of another library, such as spaCy, wrap it in a function of this kind
and name its import path in the config.
"""

from collections.abc import Mapping, Sequence

__all__ = ["english"]

# Parts of speech of Universal Dependencies (https://universaldependencies.org/u/pos/).
CLASSES = (
  "ADJ",
  "ADP",
  "ADV",
  "AUX",
  "CCONJ",
  "DET",
  "INTJ",
  "NOUN",
  "NUM",
  "PART",
  "PRON",
  "PROPN",
  "PUNCT",
  "SCONJ",
  "SYM",
  "VERB",
  "X",
)

_LISTS: Mapping[str, str] = {
  "ADP": "about above across after against along among around as at before behind "
  "below beneath beside between beyond by despite down during for from in "
  "inside into like near of off on onto out over per since through throughout "
  "till toward towards under until up upon via with within without",
  "ADV": "again almost also always even ever here how just more most never now "
  "often only perhaps quite rather so sometimes soon still then there "
  "therefore thus too very when where why yet",
  "AUX": "am are be been being can cannot could did do does had has have having is "
  "may might must shall should was were will would",
  "CCONJ": "and both but either neither nor or plus",
  "DET": "a all an any each every no some such that the these this those which",
  "INTJ": "ah alas bye hello hey hi oh okay please well yes",
  "PART": "'s 't n't not to",
  "PRON": "anybody anyone anything everybody everyone everything he her hers herself "
  "him himself his i it its itself me mine my myself nobody none nothing "
  "oneself our ours ourselves she somebody someone something their theirs "
  "them themselves they us we what whatever who whoever whom whose you your "
  "yours yourself yourselves",
  "SCONJ": "although because if lest once than though unless whereas whether while",
  "NUM": "eight eleven five four hundred million nine one seven six ten thousand "
  "three twelve two zero",
}
FUNCTION_WORDS: Mapping[str, str] = {
  word: name for name, words in _LISTS.items() for word in words.split()
}

_ENDINGS: Mapping[str, str] = {
  "ADJ": "able ful ible ical ish ive less ous",
  "ADV": "ly",
  "NOUN": "ance ances ence ences hood ism ist ities ity ment ments ness ship sion "
  "sions tion tions",
  "VERB": "ified ifies ify ing ise ised ises ize ized izes",
}
_OF_ENDING = {
  ending: name for name, endings in _ENDINGS.items() for ending in endings.split()
}
_SYMBOLS = set("$€£%+-*/=<>|~^@#&§©°")


def english(words: Sequence[str]) -> list[str]:
  """Classes of English words by a list and by their letters, without a model.

  Function words are in a list; numbers, symbols and punctuation are recognized by their
  characters, names by a capital within a sentence, and some nouns, adjectives, verbs
  and adverbs by their endings. All other words, most nouns and verbs among them, are in
  class `X`. Neighboring words have no influence.

  Args:
    words: of a document, in their order.

  Returns:
    One of `CLASSES` for each word.

  Example:
    >>> english(["The", "first", "form", "quickly", "raises", "3", "Errors", "."])
    ['DET', 'X', 'X', 'ADV', 'X', 'NUM', 'PROPN', 'PUNCT']
  """
  classes, begins = [], True
  for word in words:
    classes.append(_of_word(word, begins=begins))
    begins = classes[-1] == "PUNCT" and word[-1:] in (".", "!", "?", ":", "")
  return classes


def _of_word(word: str, *, begins: bool) -> str:
  lower = word.lower()
  if lower in FUNCTION_WORDS:
    return FUNCTION_WORDS[lower]
  if any(character.isdigit() for character in word):
    return "NUM"
  if not any(character.isalpha() for character in word):
    return "SYM" if word and set(word) <= _SYMBOLS else "PUNCT"
  if word[0].isupper() and not begins:
    return "PROPN"
  ends = (lower[-size:] for size in (5, 4, 3, 2) if len(lower) > size + 2)
  return next((_OF_ENDING[end] for end in ends if end in _OF_ENDING), "X")
