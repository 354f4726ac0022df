"""Which clients there are, what each needs installed, and which program drives it."""

from dataclasses import dataclass

DEBIAN, PYPI, NPM = "Debian", "PyPI", "npm"

# Debian's packages by the ending of a program.
INTERPRETERS = {"js": ["nodejs", "npm"], "php": ["php-cli"], "rb": ["ruby"], "pl": ["perl"]}


@dataclass(frozen=True)
class KnownFailure:
    """What a client cannot do here, on purpose."""

    # How it fails; in any other way it may not.
    check: str
    reason: str


@dataclass(frozen=True)
class Client:
    """One line of the table."""

    name: str
    # From `programs/`; it is called with the client's name and the addresses of two nodes.
    program: str
    # What it is that is tested, as (source, package); the first names the version in the table.
    packages: tuple
    # More words for the program, before the name.
    arguments: tuple = ()
    # What the table says beside the version.
    note: str = ""
    known_failure: KnownFailure | None = None

    @property
    def language(self):
        return self.program.rpartition(".")[2]

    def from_source(self, source):
        return [package for kind, package in self.packages if kind == source]

    def debian_packages(self):
        """What apt-get has to bring, the interpreter included."""
        interpreter = [] if self.language == "py" else INTERPRETERS[self.language]
        # pylibmc's wheel has its own libmemcached; nothing is compiled here.
        venv = ["python3-venv"] if self.from_source(PYPI) else []
        return [*interpreter, *venv, *self.from_source(DEBIAN)]


def _django(name, backend, engine, client_package):
    return Client(
        name,
        "with_django.py",
        ((PYPI, "Django"), (PYPI, client_package)),
        arguments=(backend, engine),
    )


CLIENTS = [
    Client("pymemcache", "with_pymemcache.py", ((PYPI, "pymemcache"),)),
    _django("django-pymemcache-cache", "PyMemcacheCache", "cache", "pymemcache"),
    _django("django-pymemcache-cached_db", "PyMemcacheCache", "cached_db", "pymemcache"),
    _django("django-pylibmc-cache", "PyLibMCCache", "cache", "pylibmc"),
    _django("django-pylibmc-cached_db", "PyLibMCCache", "cached_db", "pylibmc"),
    Client("python-memcached", "with_python_memcached.py", ((PYPI, "python-memcached"),)),
    Client("pylibmc", "with_pylibmc.py", ((PYPI, "pylibmc"),)),
    Client("aiomcache", "with_aiomcache.py", ((PYPI, "aiomcache"),)),
    Client(
        "meta-memcache",
        "with_meta_memcache.py",
        ((PYPI, "meta-memcache"),),
        arguments=("all-but-cas",),
        note="meta commands",
    ),
    Client(
        "meta-memcache-cas",
        "with_meta_memcache.py",
        ((PYPI, "meta-memcache"),),
        arguments=("cas",),
        note="CAS",
        known_failure=KnownFailure(
            "gets gives a token: saw False, expected True",
            "it reads CAS uniques into 32 bits, and ours are larger",
        ),
    ),
    Client(
        "dogpile-pymemcache",
        "with_dogpile.py",
        ((PYPI, "dogpile.cache"), (PYPI, "pymemcache")),
        arguments=("pymemcache",),
    ),
    Client(
        "dogpile-memcached",
        "with_dogpile.py",
        ((PYPI, "dogpile.cache"), (PYPI, "python-memcached")),
        arguments=("memcached",),
    ),
    Client(
        "dogpile-pylibmc",
        "with_dogpile.py",
        ((PYPI, "dogpile.cache"), (PYPI, "pylibmc")),
        arguments=("pylibmc",),
    ),
    Client(
        "oslo-cache-pymemcache",
        "with_oslo_cache.py",
        ((PYPI, "oslo.cache"), (PYPI, "pymemcache")),
        arguments=("dogpile.cache.pymemcache",),
    ),
    Client(
        "oslo-cache-pool",
        "with_oslo_cache.py",
        ((PYPI, "oslo.cache"), (PYPI, "python-memcached")),
        arguments=("oslo_cache.memcache_pool",),
    ),
    Client("php-memcached", "with_php_memcached.php", ((DEBIAN, "php-memcached"),), note="text"),
    Client("php-sessions", "php_sessions.php", ((DEBIAN, "php-memcached"),), note="text, locking"),
    Client(
        "php-sessions-binary",
        "php_sessions_binary.php",
        ((DEBIAN, "php-memcached"),),
        note="binary only: refused at once",
    ),
    Client(
        "perl-cache-memcached", "with_cache_memcached.pl", ((DEBIAN, "libcache-memcached-perl"),)
    ),
    Client(
        "dalli",
        "with_dalli.rb",
        ((DEBIAN, "ruby-dalli"),),
        note="before 3.2 binary only: refused at once",
    ),
    Client("node-memcached", "with_memcached.js", ((NPM, "memcached"),)),
    Client("node-memcache", "with_memcache.js", ((NPM, "memcache"),)),
    Client(
        "connect-memcached",
        "with_connect_memcached.js",
        ((NPM, "connect-memcached"), (NPM, "express-session")),
        note="Express sessions",
    ),
    Client(
        "remix-session-storage",
        "with_remix.js",
        ((NPM, "@remix-run/session-storage-memcache"),),
        note="Remix sessions",
    ),
    Client("memjs", "with_memjs.js", ((NPM, "memjs"),), note="binary only: refused at once"),
    Client(
        "memccapable", "memccapable.py", ((DEBIAN, "libmemcached-tools"),), note="text, 27 tests"
    ),
    Client("libmemcached-tools", "libmemcached_tools.py", ((DEBIAN, "libmemcached-tools"),)),
    Client("memcached-tool", "memcached_tool.py", ((DEBIAN, "memcached"),)),
]
