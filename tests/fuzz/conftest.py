"""What fuzz tests share: values that no careful user gives, and how much is fuzzed.

Every run has the same examples; with POOLBENCH_FUZZ=long there are many new ones.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# A fixture is shared by the examples of a test, and each writes what it reads.
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile(
    "short", max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=SHARED
)
settings.register_profile("long", settings.get_profile("short"), max_examples=2000, derandomize=False)
settings.load_profile(os.environ.get("POOLBENCH_FUZZ", "short"))

NAMES = (
    "", " ", "\n", "a\nb", "\0", "é", "🦆", "\u202e", "\udcff", "-1", "--", "-", "=", ",", ":", "a=", "=a", "a:b=c",
    "a:b=c,d", ":=,", ".", "..", "../..", "/", "/proc/nowhere", "a" * 300, "x" * 100_000, "all", "none", "%s", "{x}",
    "${HOME}", "~", "\x1b[31m", "*", "timm:", "timm:x", "timm:resnet18", "torchvision:", "torchvision:x", "x.py:f",
    ".py", "x.py", ":f", "CON", "<script>", "' or 1=1", "cuda:²", "cuda:-1", "cpu:0", "sqlite://", "http://[", "file:",
    "postgresql://x", "databricks",
)  # fmt: skip
"""Texts that have a meaning somewhere: to a shell, a file system, a terminal, a URL, our own parsers."""
NUMBERS = (
    "0", "-0", "-1", "1e309", "-1e309", "nan", "inf", "-inf", "9" * 25, "9" * 5000, "0x10", "1_000", "1e-400", "٣", "²",
    "1.", ".5", "1e3", "0-99999999999", "0-0", "1/0", "1/1", "9999999999999/9999999999999", "0/1", "3,nan,1", "1e308",
    "0.1s", "9" * 400 + "h", "20m",
)  # fmt: skip
"""Texts that are nearly numbers, ranges or times."""

words = (
    st.sampled_from(NAMES)
    | st.sampled_from(NUMBERS)
    | st.text(max_size=12)
    | st.text(alphabet="=,:-/.+_019aeN \n%", max_size=10)
)
_PATTERNS = (
    "{}", "max:{}", "gem_local:p={}", "gem_local:{}=1", "epochs={}", "learning_rate={}", "augment={}", "0-{}", "{}-0",
    "{}/3", "3/{}", "seed={}", "pool.p={}", "{}=max", "image_folder:folder={}", "timm:{}", "timm:resnet18:placement={}",
    "{}:{}", "accuracy={}", "cost_forward_ms={}", "{},{}", "max,{}", "cuda:{}", "{}m", "sqlite:///{}", "http://{}",
)  # fmt: skip


@st.composite
def values(draw: st.DrawFn) -> str:
    """Return a hostile value of an option: a word, alone or inside something that is nearly right."""
    return draw(st.sampled_from(_PATTERNS)).replace("{}", draw(words))


@pytest.fixture(scope="session")
def hostile() -> st.SearchStrategy[str]:
    """Hostile values of options."""
    return values()


@pytest.fixture(scope="session")
def hostile_words() -> st.SearchStrategy[str]:
    """Hostile names and numbers, without anything around them."""
    return words
