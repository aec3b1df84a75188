import json

import pytest

from benchmarks import latency_order
from benchmarks.latency_order import AGAIN, MACS, ONNX, TORCH, orders


def test_each_two_orders_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    latency_order.main(num=3, size="56x40", runs=1, as_json=True)
    found = json.loads(capsys.readouterr().out)
    figures = found["figures"]
    assert figures.keys() == {MACS, TORCH, ONNX, TORCH + AGAIN, ONNX + AGAIN}
    assert all(len(values) == 3 and min(values) > 0 for values in figures.values())
    assert len(found["orders"]) == 5
    for row in found["orders"]:
        low, high = row["interval"]
        assert -1 <= low <= high <= 1 and -1 <= row["kendall_tau"] <= 1


def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rising, falling = [10.0, 20.0, 30.0], [3.0, 2.0, 1.0]
    figures = {MACS: falling, **dict.fromkeys((TORCH, ONNX, TORCH + AGAIN, ONNX + AGAIN), rising)}
    monkeypatch.setattr(latency_order, "measure", lambda *_: figures)
    assert [row["kendall_tau"] for row in orders(figures)] == pytest.approx([-1, 1, -1, 1, 1])
    latency_order.main()
    shown = capsys.readouterr().out
    assert "-1.00 to -1.00" in shown and "ONNX Runtime: 10 to 30" in shown
