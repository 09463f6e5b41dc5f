-- name: lab_reports
-- What a laboratory has reported.
CREATE TABLE IF NOT EXISTS lab_reports (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    test_name varchar(255) NOT NULL,
    test_category varchar(100),
    test_value varchar(100),
    test_unit varchar(50),
    reference_range varchar(100),
    test_status varchar(20),
    lab_name varchar(255),
    lab_address text,
    ordering_physician varchar(255),
    test_date date NOT NULL,
    report_date date,
    test_notes text,
    test_methodology varchar(255),
    extracted_from_document_id integer,
    confidence_score double precision,
    raw_text text,
    categorization_status varchar(20) NOT NULL DEFAULT 'pending',
    failure_reason varchar(255),
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);

-- name: ix_lab_reports_categorization_status
-- Finds what waits.
CREATE INDEX IF NOT EXISTS ix_lab_reports_categorization_status ON lab_reports (categorization_status);

-- name: ix_lab_reports_user_id
-- Finds what a document, or a user, has.
CREATE INDEX IF NOT EXISTS ix_lab_reports_user_id ON lab_reports (user_id);

-- name: lab_report_categorized
-- The same, with its category and code.
CREATE TABLE IF NOT EXISTS lab_report_categorized (
    id integer,
    user_id integer NOT NULL,
    test_name varchar(255) NOT NULL,
    test_category varchar(100),
    test_value varchar(100) NOT NULL,
    test_unit varchar(50),
    reference_range varchar(100),
    test_status varchar(20),
    lab_name varchar(255),
    lab_address text,
    ordering_physician varchar(255),
    test_date date NOT NULL,
    report_date date,
    test_notes text,
    test_methodology varchar(255),
    extracted_from_document_id integer,
    confidence_score double precision,
    raw_text text,
    test_code varchar(50),
    loinc_code varchar(20) NOT NULL,
    inferred_test_category varchar(100),
    aggregation_status varchar(20) NOT NULL DEFAULT 'pending',
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, loinc_code, test_value, test_date)
);

-- name: ix_lab_report_categorized_test_code
-- Finds rows.
CREATE INDEX IF NOT EXISTS ix_lab_report_categorized_test_code ON lab_report_categorized (test_code);

-- name: ix_lab_report_categorized_loinc_code
-- Finds rows.
CREATE INDEX IF NOT EXISTS ix_lab_report_categorized_loinc_code ON lab_report_categorized (loinc_code);

-- name: ix_lab_report_categorized_aggregation_status
-- Finds rows.
CREATE INDEX IF NOT EXISTS ix_lab_report_categorized_aggregation_status ON lab_report_categorized (aggregation_status);

-- name: ix_lab_report_categorized_day
-- Finds a user's day.
CREATE INDEX IF NOT EXISTS ix_lab_report_categorized_day ON lab_report_categorized (user_id, test_date);

-- name: lab_reports_daily
-- Results by test, daily.
CREATE TABLE IF NOT EXISTS lab_reports_daily (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    date date NOT NULL,
    test_name varchar(255) NOT NULL,
    test_code varchar(50),
    loinc_code varchar(20),
    test_category varchar(100) NOT NULL,
    avg_value varchar(100),
    min_value varchar(100),
    max_value varchar(100),
    count integer NOT NULL DEFAULT 1,
    unit varchar(50),
    normal_range_min double precision,
    normal_range_max double precision,
    status varchar(20),
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now(),
    CONSTRAINT lab_reports_daily_loinc_code_unique UNIQUE (user_id, date, test_category, loinc_code)
);

-- name: lab_reports_monthly
-- Results by test, monthly.
CREATE TABLE IF NOT EXISTS lab_reports_monthly (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    year integer NOT NULL,
    month integer NOT NULL,
    test_name varchar(255) NOT NULL,
    test_code varchar(50),
    loinc_code varchar(20),
    test_category varchar(100) NOT NULL,
    avg_value varchar(100),
    min_value varchar(100),
    max_value varchar(100),
    count integer NOT NULL DEFAULT 1,
    unit varchar(50),
    normal_range_min double precision,
    normal_range_max double precision,
    status varchar(20),
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now(),
    CONSTRAINT lab_reports_monthly_loinc_code_unique UNIQUE (user_id, year, month, test_category, loinc_code)
);

-- name: lab_reports_quarterly
-- Results by test, quarterly.
CREATE TABLE IF NOT EXISTS lab_reports_quarterly (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    year integer NOT NULL,
    quarter integer NOT NULL,
    test_name varchar(255) NOT NULL,
    test_code varchar(50),
    loinc_code varchar(20),
    test_category varchar(100) NOT NULL,
    avg_value varchar(100),
    min_value varchar(100),
    max_value varchar(100),
    count integer NOT NULL DEFAULT 1,
    unit varchar(50),
    normal_range_min double precision,
    normal_range_max double precision,
    status varchar(20),
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now(),
    CONSTRAINT lab_reports_quarterly_loinc_code_unique UNIQUE (user_id, year, quarter, test_category, loinc_code)
);

-- name: lab_reports_yearly
-- Results by test, yearly.
CREATE TABLE IF NOT EXISTS lab_reports_yearly (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    year integer NOT NULL,
    test_name varchar(255) NOT NULL,
    test_code varchar(50),
    loinc_code varchar(20),
    test_category varchar(100) NOT NULL,
    avg_value varchar(100),
    min_value varchar(100),
    max_value varchar(100),
    count integer NOT NULL DEFAULT 1,
    unit varchar(50),
    normal_range_min double precision,
    normal_range_max double precision,
    status varchar(20),
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now(),
    CONSTRAINT lab_reports_yearly_loinc_code_unique UNIQUE (user_id, year, test_category, loinc_code)
);

-- name: lab_test_mappings
-- What names of tests mean.
CREATE TABLE IF NOT EXISTS lab_test_mappings (
    id serial PRIMARY KEY,
    test_name varchar(255) NOT NULL UNIQUE,
    test_name_standardized varchar(255),
    test_code varchar(50),
    test_category varchar(100) NOT NULL,
    gpt_suggested_category varchar(100),
    description text,
    common_units varchar(100),
    normal_range_info text,
    loinc_code varchar(20),
    loinc_source varchar(20),
    is_active boolean NOT NULL DEFAULT true,
    is_standardized boolean NOT NULL DEFAULT true,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);

-- name: vitals_raw_data
-- Vitals as they came in, in local time.
CREATE TABLE IF NOT EXISTS vitals_raw_data (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    metric_type varchar NOT NULL,
    value double precision NOT NULL,
    unit varchar NOT NULL,
    start_date timestamp NOT NULL,
    end_date timestamp NOT NULL,
    data_source varchar NOT NULL,
    source_device varchar,
    notes text,
    confidence_score double precision,
    aggregation_status varchar(20) NOT NULL DEFAULT 'pending',
    aggregated_at timestamp,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);

-- name: ux_vitals_raw_data_nodups
-- The same reading once.
CREATE UNIQUE INDEX IF NOT EXISTS ux_vitals_raw_data_nodups
    ON vitals_raw_data (user_id, metric_type, unit, start_date, data_source, coalesce(notes, ''));

-- name: ix_vitals_raw_data_waiting
-- Finds what waits.
CREATE INDEX IF NOT EXISTS ix_vitals_raw_data_waiting ON vitals_raw_data (user_id, created_at) WHERE aggregation_status <> 'categorized';

-- name: vitals_raw_categorized
-- The same, with its code.
CREATE TABLE IF NOT EXISTS vitals_raw_categorized (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    metric_type varchar NOT NULL,
    value double precision NOT NULL,
    unit varchar NOT NULL,
    start_date timestamp NOT NULL,
    end_date timestamp NOT NULL,
    data_source varchar NOT NULL,
    source_device varchar,
    notes text,
    confidence_score double precision,
    aggregation_status varchar(20) NOT NULL DEFAULT 'pending',
    aggregated_at timestamp,
    loinc_code varchar(20),
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now(),
    CONSTRAINT uq_vitals_raw_categorized_no_duplicates UNIQUE (user_id, metric_type, unit, start_date, data_source, notes)
);

-- name: ix_vitals_raw_categorized_day
-- Finds a user's day.
CREATE INDEX IF NOT EXISTS ix_vitals_raw_categorized_day ON vitals_raw_categorized (user_id, metric_type, start_date);

-- name: vitals_hourly_aggregates
-- Vitals by metric, hourly.
CREATE TABLE IF NOT EXISTS vitals_hourly_aggregates (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    metric_type varchar NOT NULL,
    loinc_code varchar(20),
    hour_start timestamp NOT NULL,
    total_value double precision,
    average_value double precision,
    min_value double precision,
    max_value double precision,
    count integer,
    duration_minutes double precision,
    unit varchar NOT NULL,
    primary_source varchar,
    sources_included text,
    notes text,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);

-- name: ix_vitals_hourly_aggregates_bucket
-- Finds a bucket.
CREATE INDEX IF NOT EXISTS ix_vitals_hourly_aggregates_bucket ON vitals_hourly_aggregates (user_id, metric_type, hour_start);

-- name: vitals_daily_aggregates
-- Vitals by metric, daily.
CREATE TABLE IF NOT EXISTS vitals_daily_aggregates (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    metric_type varchar NOT NULL,
    loinc_code varchar(20),
    date date NOT NULL,
    total_value double precision,
    average_value double precision,
    min_value double precision,
    max_value double precision,
    count integer,
    duration_minutes double precision,
    unit varchar NOT NULL,
    primary_source varchar,
    sources_included text,
    notes text,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);

-- name: ix_vitals_daily_aggregates_bucket
-- Finds a bucket.
CREATE INDEX IF NOT EXISTS ix_vitals_daily_aggregates_bucket ON vitals_daily_aggregates (user_id, metric_type, date);

-- name: vitals_weekly_aggregates
-- Vitals by metric, weekly.
CREATE TABLE IF NOT EXISTS vitals_weekly_aggregates (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    metric_type varchar NOT NULL,
    loinc_code varchar(20),
    week_start_date date NOT NULL,
    week_end_date date NOT NULL,
    total_value double precision,
    average_value double precision,
    min_value double precision,
    max_value double precision,
    days_with_data integer,
    total_duration_minutes double precision,
    unit varchar NOT NULL,
    primary_source varchar,
    sources_included text,
    notes text,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);

-- name: ix_vitals_weekly_aggregates_bucket
-- Finds a bucket.
CREATE INDEX IF NOT EXISTS ix_vitals_weekly_aggregates_bucket ON vitals_weekly_aggregates (user_id, metric_type, week_start_date);

-- name: vitals_monthly_aggregates
-- Vitals by metric, monthly.
CREATE TABLE IF NOT EXISTS vitals_monthly_aggregates (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    metric_type varchar NOT NULL,
    loinc_code varchar(20),
    year integer NOT NULL,
    month integer NOT NULL,
    total_value double precision,
    average_value double precision,
    min_value double precision,
    max_value double precision,
    days_with_data integer,
    total_duration_minutes double precision,
    unit varchar NOT NULL,
    primary_source varchar,
    sources_included text,
    notes text,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);

-- name: ix_vitals_monthly_aggregates_bucket
-- Finds a bucket.
CREATE INDEX IF NOT EXISTS ix_vitals_monthly_aggregates_bucket ON vitals_monthly_aggregates (user_id, metric_type, year, month);

-- name: vitals_sync_status
-- How far each source has been read.
CREATE TABLE IF NOT EXISTS vitals_sync_status (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    data_source varchar NOT NULL,
    last_sync_date timestamp,
    last_successful_sync timestamp,
    sync_enabled text,
    last_error text,
    error_count integer NOT NULL DEFAULT 0,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);

-- name: vitals_mappings
-- The codes of vitals.
CREATE TABLE IF NOT EXISTS vitals_mappings (
    vital_sign varchar(255) PRIMARY KEY,
    loinc_code varchar(50),
    property varchar(100),
    units varchar(100),
    system varchar(100),
    description text,
    loinc_source varchar(255)
);

-- name: vitals_mappings_seed
-- The platform's own.
INSERT INTO vitals_mappings (vital_sign, loinc_code) VALUES
    ('Body Temperature', '8310-5'),
    ('Heart Rate (Pulse)', '8867-4'),
    ('Respiratory Rate', '9279-1'),
    ('Systolic Blood Pressure', '8480-6'),
    ('Diastolic Blood Pressure', '8462-4'),
    ('Mean Arterial Pressure', '8478-0'),
    ('Oxygen Saturation (SpO₂)', '59408-5'),
    ('Body Weight (measured)', '29463-7'),
    ('Body Height (measured)', '8302-2'),
    ('BMI (Body Mass Index)', '39156-5'),
    ('Head Circumference (infants)', '8287-5'),
    ('Pain Score (0–10)', '72514-3'),
    ('Steps Taken', '41950-7'),
    ('Active Energy Burned', '41981-2'),
    ('Distance Walked/Run', '41953-1'),
    ('Heart Rate (continuous)', '8889-8'),
    ('Flights Climbed', NULL)
ON CONFLICT DO NOTHING;

-- name: nutrition_raw_data
-- Meals as they came in, in local time.
CREATE TABLE IF NOT EXISTS nutrition_raw_data (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    food_item_name varchar NOT NULL,
    dish_name varchar,
    dish_type varchar,
    meal_type varchar NOT NULL,
    portion_size double precision NOT NULL,
    portion_unit varchar NOT NULL,
    calories double precision NOT NULL, protein_g double precision DEFAULT 0, fat_g double precision DEFAULT 0, carbs_g double precision DEFAULT 0,
    fiber_g double precision DEFAULT 0, sugar_g double precision DEFAULT 0, sodium_mg double precision DEFAULT 0, vitamin_a_mcg double precision DEFAULT 0,
    vitamin_c_mg double precision DEFAULT 0, vitamin_d_mcg double precision DEFAULT 0, vitamin_e_mg double precision DEFAULT 0, vitamin_k_mcg double precision DEFAULT 0,
    vitamin_b1_mg double precision DEFAULT 0, vitamin_b2_mg double precision DEFAULT 0, vitamin_b3_mg double precision DEFAULT 0, vitamin_b6_mg double precision DEFAULT 0,
    vitamin_b12_mcg double precision DEFAULT 0, folate_mcg double precision DEFAULT 0, calcium_mg double precision DEFAULT 0, iron_mg double precision DEFAULT 0,
    magnesium_mg double precision DEFAULT 0, phosphorus_mg double precision DEFAULT 0, potassium_mg double precision DEFAULT 0, zinc_mg double precision DEFAULT 0,
    copper_mg double precision DEFAULT 0, manganese_mg double precision DEFAULT 0, selenium_mcg double precision DEFAULT 0,
    meal_date date NOT NULL,
    meal_time timestamp NOT NULL,
    data_source varchar NOT NULL,
    confidence_score double precision,
    image_url text,
    notes text,
    aggregation_status varchar(20) NOT NULL DEFAULT 'pending',
    aggregated_at timestamp,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);

-- name: ix_nutrition_raw_data_waiting
-- Finds what waits.
CREATE INDEX IF NOT EXISTS ix_nutrition_raw_data_waiting ON nutrition_raw_data (user_id, created_at) WHERE aggregation_status <> 'completed';

-- name: ix_nutrition_raw_data_day
-- Finds a user's day.
CREATE INDEX IF NOT EXISTS ix_nutrition_raw_data_day ON nutrition_raw_data (user_id, meal_date);

-- name: nutrition_daily_aggregates
-- Nutrients, daily.
CREATE TABLE IF NOT EXISTS nutrition_daily_aggregates (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    date date NOT NULL,
    total_calories double precision, total_protein_g double precision, total_fat_g double precision, total_carbs_g double precision,
    total_fiber_g double precision, total_sugar_g double precision, total_sodium_mg double precision, total_vitamin_a_mcg double precision,
    total_vitamin_c_mg double precision, total_vitamin_d_mcg double precision, total_vitamin_e_mg double precision, total_vitamin_k_mcg double precision,
    total_vitamin_b1_mg double precision, total_vitamin_b2_mg double precision, total_vitamin_b3_mg double precision, total_vitamin_b6_mg double precision,
    total_vitamin_b12_mcg double precision, total_folate_mcg double precision, total_calcium_mg double precision, total_iron_mg double precision,
    total_magnesium_mg double precision, total_phosphorus_mg double precision, total_potassium_mg double precision, total_zinc_mg double precision,
    total_copper_mg double precision, total_manganese_mg double precision, total_selenium_mcg double precision,
    meal_count integer,
    breakfast_count integer, lunch_count integer, dinner_count integer, snack_count integer,
    breakfast_calories double precision, lunch_calories double precision, dinner_calories double precision, snack_calories double precision,
    primary_source varchar,
    sources_included text,
    notes text,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);

-- name: ix_nutrition_daily_aggregates_bucket
-- Finds a bucket.
CREATE INDEX IF NOT EXISTS ix_nutrition_daily_aggregates_bucket ON nutrition_daily_aggregates (user_id, date);

-- name: nutrition_weekly_aggregates
-- Nutrients, weekly.
CREATE TABLE IF NOT EXISTS nutrition_weekly_aggregates (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    week_start_date date NOT NULL,
    week_end_date date NOT NULL,
    avg_daily_calories double precision, avg_daily_protein_g double precision, avg_daily_fat_g double precision, avg_daily_carbs_g double precision,
    avg_daily_fiber_g double precision, avg_daily_sugar_g double precision, avg_daily_sodium_mg double precision, avg_daily_vitamin_a_mcg double precision,
    avg_daily_vitamin_c_mg double precision, avg_daily_vitamin_d_mcg double precision, avg_daily_vitamin_e_mg double precision, avg_daily_vitamin_k_mcg double precision,
    avg_daily_vitamin_b1_mg double precision, avg_daily_vitamin_b2_mg double precision, avg_daily_vitamin_b3_mg double precision, avg_daily_vitamin_b6_mg double precision,
    avg_daily_vitamin_b12_mcg double precision, avg_daily_folate_mcg double precision, avg_daily_calcium_mg double precision, avg_daily_iron_mg double precision,
    avg_daily_magnesium_mg double precision, avg_daily_phosphorus_mg double precision, avg_daily_potassium_mg double precision, avg_daily_zinc_mg double precision,
    avg_daily_copper_mg double precision, avg_daily_manganese_mg double precision, avg_daily_selenium_mcg double precision,
    total_weekly_calories double precision,
    total_weekly_meals integer,
    days_with_data integer,
    primary_source varchar,
    sources_included text,
    notes text,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);

-- name: ix_nutrition_weekly_aggregates_bucket
-- Finds a bucket.
CREATE INDEX IF NOT EXISTS ix_nutrition_weekly_aggregates_bucket ON nutrition_weekly_aggregates (user_id, week_start_date);

-- name: nutrition_monthly_aggregates
-- Nutrients, monthly.
CREATE TABLE IF NOT EXISTS nutrition_monthly_aggregates (
    id serial PRIMARY KEY,
    user_id integer NOT NULL,
    year integer NOT NULL,
    month integer NOT NULL,
    avg_daily_calories double precision, avg_daily_protein_g double precision, avg_daily_fat_g double precision, avg_daily_carbs_g double precision,
    avg_daily_fiber_g double precision, avg_daily_sugar_g double precision, avg_daily_sodium_mg double precision, avg_daily_vitamin_a_mcg double precision,
    avg_daily_vitamin_c_mg double precision, avg_daily_vitamin_d_mcg double precision, avg_daily_vitamin_e_mg double precision, avg_daily_vitamin_k_mcg double precision,
    avg_daily_vitamin_b1_mg double precision, avg_daily_vitamin_b2_mg double precision, avg_daily_vitamin_b3_mg double precision, avg_daily_vitamin_b6_mg double precision,
    avg_daily_vitamin_b12_mcg double precision, avg_daily_folate_mcg double precision, avg_daily_calcium_mg double precision, avg_daily_iron_mg double precision,
    avg_daily_magnesium_mg double precision, avg_daily_phosphorus_mg double precision, avg_daily_potassium_mg double precision, avg_daily_zinc_mg double precision,
    avg_daily_copper_mg double precision, avg_daily_manganese_mg double precision, avg_daily_selenium_mcg double precision,
    total_monthly_calories double precision,
    total_monthly_meals integer,
    days_with_data integer,
    primary_source varchar,
    sources_included text,
    notes text,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);

-- name: ix_nutrition_monthly_aggregates_bucket
-- Finds a bucket.
CREATE INDEX IF NOT EXISTS ix_nutrition_monthly_aggregates_bucket ON nutrition_monthly_aggregates (user_id, year, month);
