"""The pages of the site that `with_django.py` visits."""

from django.contrib import auth
from django.http import HttpResponse
from django.urls import path

SHORT_TTL_S = 2


def count(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


def login(request):
    user = auth.authenticate(request, username="alice", password="secret")
    auth.login(request, user)
    return who(request)


def logout(request):
    auth.logout(request)
    return who(request)


def short(request):
    request.session.set_expiry(SHORT_TTL_S)
    return who(request)


def who(request):
    return HttpResponse(request.user.username or "nobody")


urlpatterns = [
    path("count/", count),
    path("login/", login),
    path("logout/", logout),
    path("short/", short),
    path("who/", who),
]
