"""Generate a seeded sample: ratings.csv and movies.csv, with users whose tastes drift through genres.

A user stays with a genre for a while, preferring its popular films, and then moves on to a nearby genre. So after
three westerns a good model recommends westerns, while plain popularity recommends the same films to everybody.
"""

import argparse
import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# In the order in which tastes drift: neighbouring genres are next to each other, and the last is next to the first.
GENRES = {
    "Western": ("Dusty Lonesome Outlaw Crimson Last", "Trail Canyon Sheriff Saddle Frontier"),
    "Adventure": ("Lost Golden Forbidden Endless Hidden", "Temple River Island Voyage Jungle"),
    "Fantasy": ("Enchanted Broken Winter Silver Ancient", "Crown Dragon Sorcerer Forest Prophecy"),
    "Animation": ("Tiny Brave Flying Runaway Curious", "Robot Penguin Teapot Whale Circus"),
    "Comedy": ("Accidental Clumsy Perfect Borrowed Honest", "Wedding Roommate Holiday Detour Mix-Up"),
    "Romance": ("Paper Summer Second Quiet Midnight", "Letters Lighthouse Promise Waltz Garden"),
    "Drama": ("Distant Unspoken Bitter Ordinary Fallen", "Verdict Inheritance Harvest Silence Sons"),
    "Crime": ("Crooked Cold Double Nameless Dirty", "Witness Alibi Ledger Precinct Heist"),
    "Thriller": ("Frozen Stolen Seventh Burning Wrong", "Signal Passenger Hour Conspiracy Asylum"),
    "Horror": ("Hollow Whispering Buried Pale Wicked", "Attic Orchard Doll Cellar Manor"),
    "Sci-Fi": ("Quantum Orbital Silent Neon Infinite", "Colony Machine Eclipse Voyager Singularity"),
    "War": ("Iron Forgotten Distant Scarlet Final", "Brigade Bunker Convoy Trench Armistice"),
}
FIRST_MOVIE_ID = 101
START = 946_684_800  # 2000-01-01, UTC
DAY = 86_400


@dataclass(frozen=True)
class Movie:
    """A film of the catalogue."""

    movie_id: int
    title: str
    genre: str


def generate_movies(generator: random.Random) -> list[Movie]:
    """Create 25 films of each genre, in random order, so that ids say nothing about genres."""
    titles = [
        (f"The {adjective} {noun} ({generator.randint(1950, 2024)})", genre)
        for genre, (adjectives, nouns) in GENRES.items()
        for adjective in adjectives.split()
        for noun in nouns.split()
    ]
    generator.shuffle(titles)
    return [Movie(FIRST_MOVIE_ID + number, title, genre) for number, (title, genre) in enumerate(titles)]


def generate_history(movies: dict[str, list[Movie]], generator: random.Random) -> Iterator[Movie]:
    """Watch 15 to 60 distinct films of a drifting genre; the first films of a genre are its popular ones."""
    genres = list(GENRES)
    current = generator.randrange(len(genres))
    seen: set[int] = set()
    for _ in range(generator.randint(15, 60)):
        if generator.random() < 0.12:
            current = (current + generator.choice((-1, 1))) % len(genres)
        genre = genres[current] if generator.random() < 0.9 else generator.choice(genres)
        unseen = [movie for movie in movies[genre] if movie.movie_id not in seen]
        if unseen:
            movie = unseen[min(int(generator.expovariate(0.2)), len(unseen) - 1)]
            seen.add(movie.movie_id)
            yield movie


def generate(folder: Path, n_users: int, seed: int) -> None:
    """Write ratings.csv (userId,movieId,rating,timestamp) and movies.csv (movieId,title,genres) into the folder."""
    generator = random.Random(seed)  # noqa: S311 - a sample, not a secret
    movies = generate_movies(generator)
    by_genre = {genre: [movie for movie in movies if movie.genre == genre] for genre in GENRES}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "movies.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["movieId", "title", "genres"])
        writer.writerows([movie.movie_id, movie.title, movie.genre] for movie in movies)
    with (folder / "ratings.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["userId", "movieId", "rating", "timestamp"])
        for user_id in range(1, n_users + 1):
            moment = START + generator.randrange(365 * DAY)
            for movie in generate_history(by_genre, generator):
                writer.writerow([user_id, movie.movie_id, generator.randint(4, 10) / 2, moment])
                moment += generator.randint(1, 7 * DAY)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    generate(arguments.folder, arguments.users, arguments.seed)
