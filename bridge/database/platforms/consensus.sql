-- name: runs
-- The runs of the consensus pipeline.
CREATE TABLE IF NOT EXISTS runs (
    id uuid PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    user_id uuid,
    status varchar(20) NOT NULL,
    queued_at timestamptz,
    started_at timestamptz,
    completed_at timestamptz,
    retry_count integer NOT NULL DEFAULT 0 CONSTRAINT ck_runs_retry_count_positive CHECK (retry_count >= 0),
    input_idea text NOT NULL,
    extra_context jsonb,
    run_type varchar(20) NOT NULL,
    priority varchar(20) NOT NULL DEFAULT 'NORMAL',
    parent_run_id uuid REFERENCES runs (id) ON DELETE CASCADE,
    model text NOT NULL,
    temperature numeric(3, 2) NOT NULL CONSTRAINT ck_runs_temperature_range CHECK (temperature BETWEEN 0 AND 2),
    parameters_json jsonb NOT NULL,
    overall_weighted_confidence numeric(5, 4) CONSTRAINT ck_runs_confidence_range CHECK (overall_weighted_confidence BETWEEN 0 AND 1),
    decision_label text,
    schema_version text,
    prompt_set_version text
);

-- name: ix_runs_status
CREATE INDEX IF NOT EXISTS ix_runs_status ON runs (status);

-- name: ix_runs_created_at
CREATE INDEX IF NOT EXISTS ix_runs_created_at ON runs (created_at);

-- name: ix_runs_queued_at
CREATE INDEX IF NOT EXISTS ix_runs_queued_at ON runs (queued_at);

-- name: ix_runs_started_at
CREATE INDEX IF NOT EXISTS ix_runs_started_at ON runs (started_at);

-- name: ix_runs_completed_at
CREATE INDEX IF NOT EXISTS ix_runs_completed_at ON runs (completed_at);

-- name: ix_runs_priority
CREATE INDEX IF NOT EXISTS ix_runs_priority ON runs (priority);

-- name: ix_runs_parent_run_id
CREATE INDEX IF NOT EXISTS ix_runs_parent_run_id ON runs (parent_run_id);

-- name: ix_runs_decision_created
CREATE INDEX IF NOT EXISTS ix_runs_decision_created ON runs (decision_label, created_at);

-- name: proposal_versions
-- One expanded proposal a run.
CREATE TABLE IF NOT EXISTS proposal_versions (
    id uuid PRIMARY KEY,
    run_id uuid NOT NULL UNIQUE REFERENCES runs (id) ON DELETE CASCADE,
    expanded_proposal_json jsonb NOT NULL,
    proposal_diff_json jsonb,
    persona_template_version text NOT NULL,
    edit_notes text
);

-- name: persona_reviews
-- One review a persona and run.
CREATE TABLE IF NOT EXISTS persona_reviews (
    id uuid PRIMARY KEY,
    run_id uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    persona_id varchar(100) NOT NULL,
    persona_name text NOT NULL,
    review_json jsonb NOT NULL,
    confidence_score numeric(5, 4) NOT NULL CHECK (confidence_score BETWEEN 0 AND 1),
    blocking_issues_present boolean NOT NULL,
    security_concerns_present boolean NOT NULL,
    prompt_parameters_json jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uq_persona_reviews_run_persona UNIQUE (run_id, persona_id)
);

-- name: decisions
-- One decision a run.
CREATE TABLE IF NOT EXISTS decisions (
    id uuid PRIMARY KEY,
    run_id uuid NOT NULL UNIQUE REFERENCES runs (id) ON DELETE CASCADE,
    decision_json jsonb NOT NULL,
    overall_weighted_confidence numeric(5, 4) NOT NULL CHECK (overall_weighted_confidence BETWEEN 0 AND 1),
    decision_notes text,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- name: ix_decisions_confidence
CREATE INDEX IF NOT EXISTS ix_decisions_overall_weighted_confidence ON decisions (overall_weighted_confidence);

-- name: step_progress
-- The seven steps of each run.
CREATE TABLE IF NOT EXISTS step_progress (
    id uuid PRIMARY KEY,
    run_id uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    step_name varchar(100) NOT NULL,
    step_order integer NOT NULL CHECK (step_order >= 0),
    status varchar(20) NOT NULL,
    started_at timestamptz,
    completed_at timestamptz,
    error_message text,
    step_metadata jsonb,
    CONSTRAINT uq_step_progress_run_step UNIQUE (run_id, step_name)
);

-- name: ix_step_progress_run_id
CREATE INDEX IF NOT EXISTS ix_step_progress_run_id ON step_progress (run_id);

-- name: ix_step_progress_status
CREATE INDEX IF NOT EXISTS ix_step_progress_status ON step_progress (status);
