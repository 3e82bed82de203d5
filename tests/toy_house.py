"""What a registry of a test's own is written with: methods as source files, one protocol's variants."""

from __future__ import annotations

from bench import registry
from bench.protocols import definitions

METHOD = '''
class Method:
    """For tests."""
    title, citation, version = "{title}", "{citation}", {version}
    {more}
'''
PROTOCOL = """
[standard]
resize = "short side 256/224 of the crop"
kernel = "bilinear"
antialias = true
heldout = 0.1
selection = "last epoch"
"""


def method(folder, key, title, citation="", version=1, more="recipe = None"):
    text = METHOD.format(title=title, citation=citation, version=version, more=more)
    (folder / f"{key.replace('-', '_')}.py").write_text(text, encoding="utf-8")


def forget():
    registry.refresh()
    definitions.load.cache_clear()
