"""Streams: films made of procedural shots, gameplay between them, any clip alone as in its video."""

import pytest
import torch

from vaportok_rl.clips import GameplayClips, ProceduralClips, StreamClips, open_clips
from vaportok_rl.clips.gameplay import STRETCH_CLIPS

SIZE, FRAMES = 8, 4
GAME = "CartPole-v1"


def test_a_film_is_a_sequence_of_shots() -> None:
    films = StreamClips(frames=FRAMES, size=SIZE, seed=3, length=16)
    assert len(films) == 16
    film = torch.cat(list(films.batch(range(STRETCH_CLIPS)).clips), 1)
    shown, shots = 0, 0
    while shown < film.shape[1]:
        lengths = [round(share * FRAMES) for share in (0.5, 1, 1.5, 2, 3)]
        options = [ProceduralClips(3, "train", frames=count, size=SIZE)[shots] for count in lengths]
        fitting = [
            one for one in options if torch.equal(one[:, : film.shape[1] - shown], film[:, shown:][:, : one.shape[1]])
        ]
        assert fitting, f"no shot begins at frame {shown}"
        shown += max(one.shape[1] for one in fitting)
        shots += 1
    assert shots > 2


def test_any_clip_alone_is_as_in_its_video_and_splits_differ() -> None:
    one, other = (StreamClips(frames=FRAMES, size=SIZE, length=32) for _ in range(2))
    together = one.batch(range(32)).clips
    for index in (31, 9, 17, 8):
        assert torch.equal(other[index], together[index])
    held_out = StreamClips(frames=FRAMES, size=SIZE, length=32, split="test")
    assert not torch.equal(held_out[0], together[0])
    assert one.identity == other.identity != held_out.identity


def test_gameplay_between_the_films() -> None:
    pytest.importorskip("pygame")
    streams = open_clips(f"streams:{GAME}", frames=FRAMES, size=SIZE, seed=2)
    films = open_clips("streams", frames=FRAMES, size=SIZE, seed=2)
    games = GameplayClips(GAME, frames=FRAMES, size=SIZE, seed=2, length=len(streams) // 2)
    rows = [*range(3 * STRETCH_CLIPS, 4 * STRETCH_CLIPS)]  # the second game
    assert torch.equal(streams.batch(rows).clips, games.batch(range(STRETCH_CLIPS, 2 * STRETCH_CLIPS)).clips)
    assert torch.equal(streams[2 * STRETCH_CLIPS + 1], films[STRETCH_CLIPS + 1])  # the second film
    assert [streams.origin(index).label for index in (0, 8, 16)] == ["film", GAME, "film"]
    assert streams.label_names == ("film", GAME)


@pytest.mark.parametrize("length", [1, 3, 8, 9])
def test_scenes_stay_within_a_video(length: int) -> None:
    starts = StreamClips(length=24).consecutive_starts(length)
    assert starts is not None
    expected = [start for start in range(24) if start // 8 == (start + length - 1) // 8]
    assert starts.tolist() == expected
