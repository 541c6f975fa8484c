"""The cases of every family of the table, each from `tests/test_family_NAME.py`."""

from importlib import import_module

from darkroom.families.table import FAMILIES

TESTED = {
    name: import_module(f"test_family_{name.replace('-', '_')}").TESTED for name, family in FAMILIES.items()
}
ENCODERS = {name: tested.encoders for name, tested in TESTED.items()}
# Name -> family, model section, what stock diffusers loads it with.
CASES = {case: (name, *found) for name, tested in TESTED.items() for case, found in tested.cases.items()}
# Family -> the section of its plain case, which has the family's name.
PLAIN = {name: tested.cases[name][0] for name, tested in TESTED.items()}
AGAIN = {name: tested.again for name, tested in TESTED.items()}
CALLS = {case: TESTED[name].call.get(case, {}) for case, (name, _, _) in CASES.items()}
