# A model of MLflow, served. Its folder is all that is needed, see docs/models.md:
#   docker build -t nas-model -f deploy/model.Dockerfile FOLDER
FROM python:3.11-slim
# As those that fetch torch without CUDA, which is a tenth as large.
ARG PIP_OPTIONS=""
COPY requirements.txt /
RUN pip install --no-cache-dir $PIP_OPTIONS -r /requirements.txt
COPY . /model
USER nobody
# What wants a home for its settings.
ENV HOME=/tmp
EXPOSE 8080
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/ping', timeout=5)"]
CMD ["mlflow", "models", "serve", "--model-uri", "/model", "--env-manager", "local", "--host", "0.0.0.0", "--port", "8080"]
