"""When the answers of the probes prove that OMERO is off."""

import pytest

from omero_archive.errors import OmeroIsOn
from omero_archive.omero.offline import Answer, ProbeResult, require_offline

ON, OFF, CANNOT_TELL = Answer.ON, Answer.OFF, Answer.CANNOT_TELL


def results(*answers: Answer) -> list[ProbeResult]:
    return [ProbeResult(name=f"probe {i}", answer=a, saw=f"sign {i}") for i, a in enumerate(answers)]


@pytest.mark.parametrize("answers", [(OFF, OFF), (OFF, CANNOT_TELL, OFF), (OFF, OFF, OFF, OFF)])
def test_two_probes_that_say_off_prove_it(answers: tuple[Answer, ...]) -> None:
    assert len(require_offline(results(*answers)).results) == len(answers)


@pytest.mark.parametrize(
    "answers", [(), (OFF,), (OFF, CANNOT_TELL, CANNOT_TELL), (ON, OFF, OFF, OFF), (ON,), (CANNOT_TELL,) * 4]
)
def test_anything_less_is_refused_with_what_every_probe_saw(answers: tuple[Answer, ...]) -> None:
    with pytest.raises(OmeroIsOn) as refusal:
        require_offline(results(*answers))
    assert all(f"sign {i}" in str(refusal.value) for i in range(len(answers)))
