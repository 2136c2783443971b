"""What is in the files of a world: words, vectors and pictures, drawn by a seed."""

from __future__ import annotations

import random

from tests.db.conftest import DIMENSION
from tests.db.pictures import DIMENSION as PATCH
from tests.db.test_search import WORDS
from tests.proof.brute import Document, Piece
from tests.proof.world import Passage, World

# no two of them alike
NAME_WORDS = ["budget", "invoice", "harvest", "symphony", "quarterly", "glacier", "protocol"]
TOPICS = 4


class Contents:
    """The subjects of a world: what is near to one another, and questions about it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.topics = [self._gauss(DIMENSION) for _ in range(TOPICS)]
        self.looks = [self._gauss(PATCH) for _ in range(TOPICS)]

    def _gauss(self, size: int) -> list[float]:
        return [self.chance.gauss(0, 1) for _ in range(size)]

    def _near(self, middle: list[float]) -> list[float]:
        return [x + self.chance.gauss(0, 0.7) for x in middle]

    def fill(self, world: World) -> None:
        """Write all files; each text has a number of its own, so that none is another's copy."""
        number = 0
        for file in world.files:
            words = self.chance.sample(NAME_WORDS, self.chance.randrange(1, 4))
            file.name = f"{' '.join(words)} {world.nodes.index(file)}.txt"
            for version in file.versions:
                topic = self.chance.randrange(TOPICS)
                version.passages = []
                for _ in range(self.chance.randrange(1, 4)):
                    number += 1
                    text = " ".join([f"n{number}", *self.words(topic, self.chance.randrange(2, 9))])
                    version.passages.append(Passage(text, self._near(self.topics[topic])))
                version.patches = [self._near(self.looks[topic]) for _ in range(3)]

    def words(self, topic: int, count: int) -> list[str]:
        """Return words that texts about something have."""
        return self.chance.choices(WORDS[6 * topic : 6 * topic + 9], k=count)

    def question(self, *, is_elsewhere: bool = False) -> tuple[str, list[float]]:
        """Return words of texts and names, and a vector; elsewhere: about nothing there is."""
        topic = self.chance.randrange(TOPICS)
        names = self.chance.sample(NAME_WORDS, 2)
        words = self.chance.choice([self.words(topic, 3), names, [*names, *self.words(topic, 1)]])
        if is_elsewhere:
            return " ".join([WORDS[-1], words[0]]), self._gauss(DIMENSION)
        return " ".join(words), self._near(self.topics[topic])

    def names(self) -> str:
        """Return words of names."""
        return " ".join(self.chance.sample(NAME_WORDS, self.chance.randrange(1, 3)))

    def look(self) -> list[list[float]]:
        """Return the vectors of a question about pictures."""
        return [self._near(self.chance.choice(self.looks)) for _ in range(3)]


def documents(world: World) -> list[Document]:
    """What of a world's files is in service: their heads, in the trash as well."""
    return [
        Document(
            file.id,
            file.name,
            file.owner.id,
            tuple(Piece(p.id, p.text, tuple(p.vector or ())) for p in file.head.passages)
            if file.head
            else (),
            tuple(tuple(p) for p in file.head.patches) if file.head else (),
            file.head is not None,
        )
        for file in world.files
    ]
