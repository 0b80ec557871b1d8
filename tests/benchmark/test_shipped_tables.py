"""The tables in the package belong to its weights; a file of its own, since tests of the others replace them."""

import pytest

from vaportok_rl.benchmark import tables
from vaportok_rl.benchmark.tables import SHIPPED, find_table, fingerprint
from vaportok_rl.benchmark.tasks import TABLES
from vaportok_rl.envs import OutcomeTable


@pytest.mark.parametrize("name", TABLES)
def test_the_shipped_tables_are_the_pinned_ones_of_the_shipped_weights(name: str) -> None:
    """If the weights have changed: python -m vaportok_rl.benchmark.pinning OUT --ship."""
    assert find_table(name) == SHIPPED / name
    assert fingerprint(SHIPPED / name) == tables.pins()[name]
    table, spec = OutcomeTable.load(SHIPPED / name), TABLES[name]
    assert table.check_own_tokenizer()
    assert len(table["train"]) == spec.train + spec.validation
    assert len(table["test"]) == spec.test
    assert sum(shard.size for split in table.splits for shard in table.record(split).shards) < 2**21
