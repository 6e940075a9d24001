"""What the program says of errors that no command takes care of."""

from autolabel.app import main as program


def test_too_little_memory_is_one_line(monkeypatch, capsys):
    def full(_arguments):
        raise MemoryError("Unable to allocate 149. GiB for an array")

    monkeypatch.setattr(program, "_run", full)
    assert program._guarded(["evaluate", "r"], debug=False) == 1
    assert capsys.readouterr().err == (
        "autolabel: not enough memory: MemoryError: Unable to allocate 149. GiB for an array (--debug shows where)\n"
    )
