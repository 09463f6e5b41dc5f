-- name: document_status
-- What may become of a document.
DO $$ BEGIN
    CREATE TYPE document_status AS ENUM ('uploaded', 'processing', 'completed', 'failed');
EXCEPTION WHEN duplicate_object THEN NULL;
END $$;

-- name: documents
-- The documents of the card platform.
CREATE TABLE IF NOT EXISTS documents (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    type varchar(50) NOT NULL,
    file_url text,
    status document_status DEFAULT 'uploaded',
    verification_status varchar(50) DEFAULT 'pending',
    ai_score integer,
    ai_decision varchar(50),
    buli2_ticket_id varchar(255),
    result_json jsonb,
    ocr_text text,
    created_at timestamp DEFAULT now(),
    processed_at timestamp
);

-- name: manual_reviews
-- Cases that people decide.
CREATE TABLE IF NOT EXISTS manual_reviews (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    document_id uuid REFERENCES documents (id),
    user_id uuid,
    payload jsonb NOT NULL,
    status varchar(50) DEFAULT 'pending',
    decision varchar(50),
    confidence integer,
    notes text,
    buli2_task_id varchar(255),
    created_at timestamp DEFAULT now(),
    updated_at timestamp DEFAULT now()
);
