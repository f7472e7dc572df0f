"""Stream ids to pointers: against a dict, at the bound, with colliding ids (docs/spec/limits.md)."""

import random

from netchan._core import _selftest_session as st

OK, ELIMIT = st.RC["OK"], st.RC["ELIMIT"]


class TestIdMap:
    def test_empty_map_knows_nothing(self) -> None:
        m = st.IdMap(8, 1)
        assert m.get(16) == 0 and m.pop(16) == 0 and m.walk() == [] and len(m) == 0

    def test_put_beyond_the_bound_is_refused_and_changes_nothing(self) -> None:
        m = st.IdMap(3, 1)
        assert [m.put(i, i) for i in (16, 18, 20, 22)] == [OK, OK, OK, ELIMIT]
        assert m.get(22) == 0 and len(m) == 3
        assert m.pop(18) == 18 and m.put(22, 22) == OK

    def test_put_again_replaces(self) -> None:
        m = st.IdMap(3, 1)
        assert m.put(16, 1) == OK == m.put(16, 2)
        assert m.get(16) == 2 and len(m) == 1

    def test_random_steps_agree_with_a_dict(self) -> None:
        for seed in range(40):
            rng = random.Random(seed)
            m, want = st.IdMap(200, rng.getrandbits(64)), dict[int, int]()
            ids = [rng.choice([i * 2 + 16, rng.getrandbits(62) + 1, (i << 32) + 1, 2**62 - 1 - i]) for i in range(60)]
            for _ in range(600):
                id_ = rng.choice(ids)
                if rng.random() < 0.55:
                    value = rng.randrange(1, 1 << 40)
                    assert m.put(id_, value) == OK
                    want[id_] = value
                else:
                    assert m.pop(id_) == want.pop(id_, 0)
                assert len(m) == len(want)
            assert sorted(m.walk()) == sorted(want.values()), seed
            assert all(m.get(i) == want.get(i, 0) for i in ids), seed

    def test_table_of_coming_and_going_ids_stays_small(self) -> None:
        m = st.IdMap(1000, 12345)
        for i in range(50_000):
            m.put(16 + 2 * i, i + 1)
            if i >= 8:
                assert m.pop(16 + 2 * (i - 8)) == i - 7
        assert m.cap <= 32
