# The image that profiles/kubernetes names, also for one machine. It has not been built yet: a test only reads it.
#     docker build -t adlib .
#     docker run --rm --gpus all -v "$PWD/data:/data" -v "$PWD/results:/results" adlib batch batch/quick.yml
FROM python:3.11-slim

# A cluster wants the project at the same path as on the machine that submits: --build-arg PROJECT="$PWD"
ARG PROJECT=/opt/adlib
WORKDIR ${PROJECT}

# The packages first: they change less often than the code, and Docker keeps the layer.
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE CITATION.cff Snakefile ./
COPY adlib adlib
COPY batch batch
COPY notebooks notebooks
COPY profiles profiles
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .

# Pictures, weights and results belong to the user and come from outside.
ENV ADLIB_DATA=/data ADLIB_WEIGHTS=/weights ADLIB_RESULTS=/results ADLIB_CACHE=/cache
RUN useradd --create-home --uid 1000 adlib && mkdir -p /data /weights /results /cache \
    && chown adlib /data /weights /results /cache
USER adlib
VOLUME ["/data", "/weights", "/results", "/cache"]

ENTRYPOINT ["python", "-m", "adlib"]
CMD ["--help"]
