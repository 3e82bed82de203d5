"""The benchmark runs on every method that trains and prints a row for each; the rates themselves are not asserted."""

import bench_pretext_throughput as benchmark


def test_every_method_has_a_row(capsys):
    rows = benchmark.main(["--backbone", "alexnet-smoke", "--side", "32", "--size", "32", "--rounds", "1"])
    printed = capsys.readouterr().out.splitlines()
    assert [row.method for row in rows] == list(benchmark.trained())
    assert len(rows) >= 3
    for row in rows:
        assert any(line.split()[0] == row.method for line in printed)
        assert row.view > 0
        assert row.step > 0
        assert row.ratio > 0


def test_methods_can_be_named(capsys):
    (row,) = benchmark.main(
        ["rotation", "--backbone", "alexnet-smoke", "--side", "32", "--size", "16", "--rounds", "1"]
    )
    assert (row.method, row.kind) == ("rotation", "crop")
    assert "2,000" in capsys.readouterr().out
