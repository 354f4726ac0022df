"""A small Django site whose users live in the session alone.

Run as a program it is one worker process: it takes the cache's LOCATION, and OPTIONS as JSON,
from its environment, serves on a free port and prints that port as its first line. One request at
a time, as a synchronous gunicorn worker: so the cache client, and what it remembers of
failed servers, lives on from request to request.
"""

import json
import os
import signal
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
from django.views.decorators.http import require_POST

# Django's key prefix and version, then the session engine's: what a node sees on the wire.
SESSION_KEY_PREFIX = ":1:django.contrib.sessions.cache"


@require_POST
def login(request):
    """Does to the session what django.contrib.auth.login does."""
    user = request.POST["user"]
    if request.session.get("user", user) != user:
        request.session.flush()
    else:
        request.session.cycle_key()
    request.session["user"] = user
    request.session["visits"] = 0
    return JsonResponse({"user": user})


def whoami(request):
    """Only reads the session."""
    return JsonResponse({name: request.session.get(name) for name in ("user", "visits")})


@require_POST
def visit(request):
    """Writes the session: a counter shows a lost write."""
    if "user" not in request.session:
        return JsonResponse({"user": None}, status=403)
    request.session["visits"] += 1
    return JsonResponse({"user": request.session["user"], "visits": request.session["visits"]})


@require_POST
def rotate(request):
    """Gives the session another key, as a change of password does."""
    if "user" in request.session:
        request.session.cycle_key()
    return JsonResponse({name: request.session.get(name) for name in ("user", "visits")})


@require_POST
def logout(request):
    """Deletes the session."""
    request.session.flush()
    return JsonResponse({"user": None})


urlpatterns = [path(view.__name__, view) for view in (login, whoami, visit, rotate, logout)]


class QuietHandler(WSGIRequestHandler):
    """No line for each request: the log is shown when a test fails, and errors are in it."""

    def log_message(self, *_):
        pass


def configure(location, options):
    settings.configure(
        SECRET_KEY="only for tests",
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF="website",
        INSTALLED_APPS=["django.contrib.sessions"],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
        ],
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        # Unless told otherwise, all options are the defaults: what most sites run must survive.
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
                "LOCATION": location,
                "OPTIONS": options,
            }
        },
        LOGGING={
            "version": 1,
            "handlers": {"stderr": {"class": "logging.StreamHandler"}},
            "loggers": {"django": {"handlers": ["stderr"], "level": "ERROR"}},
        },
    )
    django.setup()


def serve():
    configure(os.environ["LOCATION"], json.loads(os.environ.get("CACHE_OPTIONS", "{}")))
    with make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=QuietHandler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    # Not an exception: one that arrives within a request, wsgiref swallows.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    serve()
