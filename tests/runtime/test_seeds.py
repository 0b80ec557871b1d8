"""Seeds derived from several parts."""

from vaportok_rl.runtime.seeds import derive_seed


def test_seeds_tell_their_parts_apart() -> None:
    seeds = {derive_seed(*parts) for parts in ((1, 23), (12, 3), (123,), ("a", 1), ("a", "1", 0), (0,), (-1,))}
    assert len(seeds) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)
